"""The command `ketwork`: one file a subcommand. Others take `main` alone."""

from ketwork.cli.app import main

__all__ = ["main"]
