"""Entry point of `python -m dpo`, which is the same as the console script `dpo`. Launchers may start it by its path."""

import sys
from pathlib import Path

if not __package__:  # started by its path, which made Python search in the package's folder instead of the one above
    package = Path(__file__).resolve().parent
    sys.path[:] = [str(package.parent), *(folder for folder in sys.path if Path(folder).resolve() != package)]

from dpo.cli import main

if __name__ == "__main__":  # not in the processes that prepare rows, which import the main module
    sys.exit(main())
