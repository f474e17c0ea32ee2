"""``python -m pacl``, and so ``torchrun -m pacl``, is the command ``pacl``."""

import os
import sys

from pacl.cli import main


def run() -> None:
    """Run the command and leave with its exit code."""
    code = main()
    if "TORCHELASTIC_RUN_ID" in os.environ:
        # All is written and closed. Unwinding what is left of a process group aborts the process
        # now and then ("terminate called without an active exception", docs/log.md).
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    raise SystemExit(code)


if __name__ == "__main__":
    run()
