"""`python -m ketwork`: the command."""

from ketwork.cli import main

main()
