"""Entry point of `python -m dpo`, which is the same as the console script `dpo`."""

import sys

from dpo.cli import main

sys.exit(main())
