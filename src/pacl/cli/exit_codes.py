"""What ``pacl`` gives back to the shell."""

from __future__ import annotations

DONE = 0
SOME_FAILED = 1  # some pictures or rows; the others are done
WRONG_INPUT = 2
CANNOT_RUN = 3  # the environment, or a defect
INTERRUPTED = 130  # as shells report a program that Ctrl-C ended
