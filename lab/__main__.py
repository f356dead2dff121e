"""``python -m lab``, which users know as ``failback lab``."""

from __future__ import annotations

import sys

from lab.stack.commandline import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
