"""Errors that the user can fix: each says what is wrong, why, and how to fix it.

The exit codes are the command line's: 2 for bad input or usage, 3 for the environment. The
mathematics (``modeling/compatibility.py``, ``evaluation/metrics/``) does not know this file and
raises ``ValueError``.
"""

from __future__ import annotations


class PaclError(Exception):
    """An error that the user caused or can fix, never a defect of the program.

    Args:
        what: What is wrong, in one line that names the file or argument.
        why: What was found and what was looked for; may hold several lines.
        fix: What to do, as a command to paste where there is one.

    ``str()`` returns the lines that the command line prints after ``error: ``.
    """

    exit_code = 2

    def __init__(self, what: str, *, why: str = "", fix: str = "") -> None:
        self.what = what
        self.why = why
        self.fix = fix
        lines = [what]
        lines += [f"  {line}" for line in why.splitlines()]
        if fix:
            lines.append(f"  fix: {fix}")
        super().__init__("\n".join(lines))

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle by the three parts, so that a worker process can hand the error to its parent."""
        return _rebuild, (type(self), self.what, self.why, self.fix)


class InputError(PaclError, ValueError):
    """The data, a file or an argument is not what it should be."""


class EnvironmentProblem(PaclError, RuntimeError):
    """The machine is in the way: a missing package, a full disk, no network."""

    exit_code = 3


def _rebuild(kind: type[PaclError], what: str, why: str, fix: str) -> PaclError:
    return kind(what, why=why, fix=fix)
