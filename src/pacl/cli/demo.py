"""pacl demo."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from pacl.cli.console import DONE
from pacl.cli.options import ModelOptions


@dataclass(frozen=True)
class DemoOptions:
    """Try a model in the browser; the same address is an HTTP service."""

    host: str = "127.0.0.1"
    """Address to listen at; 0.0.0.0: every machine in the network may connect."""

    port: int | None = None
    """Port to listen at; none: the first free one from 7860."""

    examples: tuple[str, ...] = ()
    """Images to choose from."""

    loading: ModelOptions = field(default_factory=ModelOptions)


def run_demo(options: DemoOptions) -> int:
    """Serve the page until it is interrupted."""
    from pacl.runtime.packages import require_packages

    require_packages(["gradio"], purpose="the demo")
    from pacl.deploy.app import build_demo, serve

    model = options.loading.load(is_for_photographs=True)
    page = build_demo(model, examples=[Path(path) for path in options.examples])
    serve(page, host=options.host, port=options.port)
    return DONE
