"""``python -m pacl``, and so ``torchrun -m pacl``, is the command ``pacl``."""

from pacl.cli import main

raise SystemExit(main())
