"""The command group: the list of commands, and the one place where an error becomes a message and an exit status."""

from __future__ import annotations

import os
import sys
from typing import Any, TextIO

import click
from sqlalchemy.exc import DBAPIError

from webapp import db
from webapp.batches import whence
from webapp.errors import BatchdeskError

OK, BAD_USAGE, FAILURES, STOPPED_WAITING = 0, 2, 3, 4

COMMANDS = {
    "run": "webapp.cli.run",
    "status": "webapp.cli.runs",
    "resubmit": "webapp.cli.runs",
    "pause": "webapp.cli.runs",
    "resume": "webapp.cli.runs",
    "cancel": "webapp.cli.runs",
    "export": "webapp.cli.runs",
    "money": "webapp.cli.money",
    "deliver": "webapp.cli.delivering",
    "destinations": "webapp.cli.delivering",
    "plugins": "webapp.cli.plugins",
    "doctor": "webapp.cli.doctor",
    "sandbox": "webapp.cli.serving",
    "up": "webapp.cli.serving",
    "migrate": "webapp.cli.serving",
    "demo": "webapp.cli.demo",
}


class Commands(click.Group):
    """Loads a command's module when it is called: quick commands stay quick."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        from importlib import import_module

        command: click.Command = getattr(import_module(COMMANDS[name]), name)
        return command

    def invoke(self, context: click.Context) -> Any:
        whence.act_from(whence.COMMAND_LINE)
        try:
            return super().invoke(context)
        except BatchdeskError as error:
            _say(str(error))
        except DBAPIError as error:
            words = db.trouble(error)
            if words is None:
                raise
            _say(f"{words}\n`batchdesk doctor` says more.")
        except KeyboardInterrupt:
            _say("Interrupted.")
            raise SystemExit(STOPPED_WAITING) from None
        except BrokenPipeError:
            # Whoever read our output has gone; nothing is wrong with what was asked.
            _stop_writing(sys.stdout)
            raise SystemExit(OK) from None
        raise SystemExit(BAD_USAGE)


def tell(message: str, *, err: bool = True) -> None:
    """Write a line for people, or (`err` False) data; the command goes on when whoever read it has gone."""
    try:
        click.echo(message, err=err)
    except BrokenPipeError:
        _stop_writing(sys.stderr if err else sys.stdout)


def _stop_writing(stream: TextIO) -> None:
    """Let what is still to be written, and what the stream has kept, go nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _say(message: str) -> None:
    click.echo(f"batchdesk: {message}", err=True)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="batchdesk")
def main() -> None:
    """The operators' desk for Anthropic Message Batches: records in, outputs and their cost out."""
