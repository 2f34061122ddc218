"""The command line, `batchdesk …`: the main job without a browser, and what an operator needs beside it.
Each command is in the module of its subject; words for people go to stderr, data to stdout.
"""

from webapp.cli.app import main

__all__ = ["main"]
