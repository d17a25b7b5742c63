"""`python -m dropkit`: the command line."""

from dropkit.cli import main

main()
