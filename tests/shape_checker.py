"""The run-time type checker behind jaxtyping's import hook, on in tests and nowhere else.

An int is accepted where a float is annotated, as by static type checkers (PEP 484). An argument
annotated with a protocol, such as the frozen encoder, may be anything: asking an object for every
member of the protocol would run its properties.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

from beartype import BeartypeConf, beartype

_check = beartype(conf=BeartypeConf(is_pep484_tower=True))


def check(function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a function, or a class's initialiser, so that its annotations are enforced."""
    hints = function.__annotations__
    for name, hint in hints.items():
        if any(getattr(part, "_is_protocol", False) for part in (hint, *get_args(hint))):
            hints[name] = object
    return _check(function)
