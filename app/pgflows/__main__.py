"""`python -m pgflows` is the command line."""

from pgflows.cli import main

main()
