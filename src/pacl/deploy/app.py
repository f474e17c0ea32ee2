"""A page to try a model in a browser, and the HTTP service that comes with it.

`pacl demo` starts it. As a Space of the hub, this very file is `app.py`, and PACL_MODEL names the
model. Whatever a visitor sends, the page answers in words of its own: no path, no traceback.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import gradio as gr
import numpy as np
from gradio.processing_utils import save_pil_to_cache
from gradio.utils import get_upload_folder
from PIL import Image

from pacl.api import Model, is_on_storybook, load
from pacl.data.images import open_image
from pacl.data.source import Source
from pacl.data.sources import find_sources
from pacl.datasets.storybook import draw_scene
from pacl.errors import EnvironmentProblem, InputError
from pacl.modeling.pacl import Pacl
from pacl.results import Segmentation
from pacl.results.palette import class_colours

MAX_FILE = "20mb"
MAX_SIDE_PX = 1024
"""Larger images are scaled down: a page shows no more."""
MAX_LABELS = 64
MAX_LABEL_LENGTH = 60
MAX_WAITING = 50
"""Visitors in the queue; the next one is asked to come back later."""
N_EXAMPLES, N_CALIBRATION = 3, 16
"""Drawn scenes that are shown, and that words are calibrated with."""

CSS = ".gradio-container {max-width: 1100px !important; margin: auto}"

P = ParamSpec("P")
R = TypeVar("R")
_log = logging.getLogger(__name__)


def _path_of(payload: Any) -> str | None:
    """Return the path of an uploaded file, for pacl to open with its limits and its messages."""
    return payload.path if payload else None  # a data URL has none


class Demo:
    """What the page computes.

    Args:
        model: Segments.
        examples: Images of the kind that visitors bring, to calibrate the words that compete where
            a visitor gives none.
    """

    def __init__(self, model: Model, examples: Sequence[Source]) -> None:
        self.model = model
        self.clip = _clip_of(model)
        """The same encoder without a trained embedder; None: it has no joint space of its own."""
        self._bank = model.word_bank(examples)

    def segment(self, path: str | None, words: str) -> tuple[dict[str, float], str]:
        """Segment an image with the words given.

        Args:
            path: The uploaded image.
            words: Labels, separated by commas or line breaks; none: they are chosen for the image.

        Returns:
            The share of the image that each label covers, and the label map as a PNG of the
            image's size, at most 1024 px a side: 0 = none, 1 = the first label.
        """
        found = self.find(path, words)
        return _areas(found), _save_label_map(found)

    def show(
        self, path: str | None, words: str
    ) -> tuple[Any, Any, dict[str, float], Any, str | None]:
        """Segment an image by PACL and by CLIP alone, for the page.

        Args:
            path: As for `segment`.
            words: As for `segment`.

        Returns:
            PACL's regions and CLIP's, areas, the labels to choose a heat map of, the label map.
        """
        found = self.find(path, words)
        beside = annotate(self.clip.segment(found.image, found.labels)) if self.clip else None
        best = max(found.labels, key=lambda label: found.areas[label])
        choices = gr.Dropdown(choices=list(found.labels), value=best)
        return annotate(found), beside, _areas(found), choices, _save_label_map(found)

    def find(self, path: str | None, words: str) -> Segmentation:
        """Read what a visitor sent, and segment it."""
        image, labels = _read_upload(path), read_words(words)
        if labels:
            return self.model.segment(image, labels)
        return only_seen(self.model.segment(image, self._bank))

    def heat_map(self, path: str | None, phrase: str | None) -> Image.Image | None:
        """Show where an image matches a phrase.

        Args:
            path: The uploaded image.
            phrase: Any words.

        Returns:
            The image in grey, bright where patches match the phrase best.
        """
        if not phrase:
            return None
        [label] = read_words(phrase.replace(",", " "))
        image = _read_upload(path)
        return self.model.segment(image, [label]).heatmap(label)


def read_words(words: str) -> list[str]:
    """Split labels at commas and line breaks.

    Raises:
        InputError: There are too many, or one is too long.
    """
    labels = [" ".join(word.split()) for word in words.replace("\n", ",").split(",")]
    labels = list({label.casefold(): label for label in labels if label}.values())
    if len(labels) > MAX_LABELS:
        raise InputError(f"{len(labels)} labels are too many", why=f"at most {MAX_LABELS}")
    if any(len(label) > MAX_LABEL_LENGTH for label in labels):
        raise InputError("a label is too long", why=f"at most {MAX_LABEL_LENGTH} characters")
    return labels


def only_seen(found: Segmentation) -> Segmentation:
    """Return a result without the labels that won nowhere, the others counted anew."""
    seen = [k for k, label in enumerate(found.labels) if found.areas[label] > 0]
    number = np.zeros(len(found.labels) + 1, dtype=found.label_map.dtype)
    number[[k + 1 for k in seen]] = range(1, len(seen) + 1)
    return replace(
        found,
        labels=tuple(found.labels[k] for k in seen),
        label_map=number[found.label_map],
        class_scores=found.class_scores[seen],
    )


def annotate(found: Segmentation) -> Any:
    """Return a result as regions with names, in the colours of the overlay."""
    colours = ["#{:02x}{:02x}{:02x}".format(*each) for each in class_colours(found.labels)]
    regions = [
        ((found.label_map == number).astype(np.float64) * 0.6, label)
        for number, label in enumerate(found.labels, start=1)
        if found.areas[label] > 0
    ]
    value = (found.image, regions)
    return gr.AnnotatedImage(
        value=value, color_map=dict(zip(found.labels, colours, strict=True)), format="png"
    )


def _read_upload(path: str | None) -> Image.Image:
    if path is None:
        raise InputError("no image", why="upload one, or choose an example")
    # As bytes, so that no message names the file.
    image = open_image(Path(path).read_bytes())
    image.thumbnail((MAX_SIDE_PX, MAX_SIDE_PX))
    return image


def _areas(found: Segmentation) -> dict[str, float]:
    return {label: round(area, 4) for label, area in found.areas.items()}


def _save_label_map(found: Segmentation) -> str:
    """Keep the label map where the page may hand it out; gradio deletes old files."""
    label_map = Image.fromarray(found.label_map.astype(np.uint8))  # MAX_LABELS fit into 8 bits
    return save_pil_to_cache(label_map, cache_dir=get_upload_folder(), format="png")


def _clip_of(model: Model) -> Model | None:
    pacl = model.pacl
    if not (pacl.is_clip and pacl.has_embedder):
        return None
    return Model(Pacl(encoder=pacl.encoder, embedder=None), templates=model.templates)


def in_words(function: Callable[P, R]) -> Callable[P, R]:
    """Turn every error into a message for visitors; what pacl did not expect goes to the log."""

    def answer(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except InputError as error:
            message = ": ".join(filter(None, (error.what, error.why)))
            raise gr.Error(message, print_exception=False) from None
        except Exception as error:
            _log.exception("the demo failed")
            raise gr.Error("Something went wrong here.", print_exception=False) from error

    return answer


def build_demo(model: Model, *, examples: Sequence[Path] = ()) -> gr.Blocks:
    """Build the page.

    Args:
        model: Segments.
        examples: Images to choose from; none: drawn scenes, for the model that knows them.
    """
    known = list(find_sources(list(examples))) if examples else _draw_scenes(model)
    demo = Demo(model, known)
    shown = [str(path) for path in examples] or [
        save_pil_to_cache(scene.open(), cache_dir=get_upload_folder(), format="png")
        for scene in known[:N_EXAMPLES]
    ]
    one_at_a_time: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "model"}
    with gr.Blocks(title="pacl", analytics_enabled=False, delete_cache=(3600, 3600)) as page:
        gr.Markdown(f"# Segment an image by any words\n{model.describe()}")
        with gr.Row():
            image = gr.Image(label="image", sources=["upload", "clipboard"], height=300)
            image.preprocess = _path_of
            with gr.Column():
                words = gr.Textbox(
                    label="labels, separated by commas",
                    info=f"At most {MAX_LABELS}; none: words are chosen for the image.",
                    elem_id="labels",
                )
                button = gr.Button("Segment", variant="primary", elem_id="segment")
                if shown:
                    gr.Examples(shown, inputs=image, label="examples")
        with gr.Row():
            ours = gr.AnnotatedImage(label="PACL", elem_id="pacl", height=360)
            theirs = gr.AnnotatedImage(
                label="CLIP, not trained", elem_id="clip", height=360, visible=demo.clip is not None
            )
        phrase, areas, labels_png, heat = _lay_out_details()
        inputs, outputs = [image, words], [ours, theirs, areas, phrase, labels_png]
        for event in (button.click, words.submit):
            event(in_words(demo.show), inputs, outputs, api_visibility="private", **one_at_a_time)
        gr.Button(visible=False).click(
            in_words(demo.segment),
            inputs,
            [areas, labels_png],
            api_name="segment",
            api_description=Demo.segment.__doc__ or "",
            **one_at_a_time,
        )
        phrase.change(
            in_words(demo.heat_map),
            [image, phrase],
            heat,
            api_name="heat_map",
            api_description=Demo.heat_map.__doc__ or "",
            **one_at_a_time,
        )
        for regions in (ours, theirs):
            regions.select(_name_of, None, phrase, api_visibility="private")
    return page.queue(max_size=MAX_WAITING)


def _lay_out_details() -> tuple[gr.Dropdown, gr.JSON, gr.DownloadButton, gr.Image]:
    """Add the last row of the page: a phrase, the areas, the label map and the heat map."""
    with gr.Row():
        with gr.Column():
            phrase = gr.Dropdown(
                label="heat map of (or click a label above)",
                choices=[],
                allow_custom_value=True,
                elem_id="phrase",
            )
            areas = gr.JSON(label="share of the image")
            labels_png = gr.DownloadButton("Label map (PNG)")
        heat = gr.Image(label="heat map", elem_id="heat", height=360, interactive=False)
    return phrase, areas, labels_png, heat


def _name_of(event: gr.SelectData) -> str:
    """Return the label of the region that was clicked."""
    return str(event.value)


def _draw_scenes(model: Model) -> list[Source]:
    if not is_on_storybook(model):
        return []
    scenes = [Image.fromarray(draw_scene("test", k).image) for k in range(N_CALIBRATION)]
    return [Source(f"scene {k}", scene.copy) for k, scene in enumerate(scenes)]


def serve(page: gr.Blocks, *, host: str, port: int | None, is_blocking: bool = True) -> str:
    """Serve a page until it is interrupted.

    Args:
        page: Built by `build_demo`.
        host: The address to listen at; "0.0.0.0" for every machine in the network.
        port: None: the first free one from 7860.
        is_blocking: Whether to return only after the end.

    Returns:
        The page's address.

    Raises:
        EnvironmentProblem: The port is taken.
    """
    try:
        _, address, _ = page.launch(
            server_name=host,
            server_port=port,
            max_file_size=MAX_FILE,
            show_error=False,
            quiet=True,
            css=CSS,
            footer_links=["api"],
            ssr_mode=False,
            share=False,
            prevent_thread_lock=True,
            enable_monitoring=False,
        )
    except OSError as error:
        raise EnvironmentProblem(
            f"cannot listen at {host}, port {port}", why=str(error), fix="another --port"
        ) from None
    _log.info("serving at %s", address)
    if is_blocking:
        page.block_thread()
    return address


if __name__ == "__main__":
    serve(
        build_demo(load(os.environ.get("PACL_MODEL", "storybook"))),
        host=os.environ.get("GRADIO_SERVER_NAME", "0.0.0.0"),
        port=int(os.environ.get("GRADIO_SERVER_PORT", "7860")),
    )
