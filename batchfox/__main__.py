"""`python -m batchfox`."""

from batchfox.cli import main

main()
