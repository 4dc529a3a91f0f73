"""`python -m supervisor_d` is `supervisor-d`."""

from __future__ import annotations

import sys

from supervisor_d.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
