"""The command line, to be run in a fresh process."""

import sys

MAIN = "from fusedbert.engine.cli import main; main()"
FUSEDBERT = [sys.executable, "-c", MAIN]
