"""Where outputs go, by the command line: saved, named, waited for, and tried again."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool
from support.command_line import CommandLine
from support.desk import documents

pytestmark = pytest.mark.usefixtures("worker")


def rows(path: Path) -> int:
    with create_engine(f"sqlite:///{path}", poolclass=NullPool).connect() as connection:
        return int(connection.execute(text("SELECT count(*) FROM labels")).scalar_one())


def test_outputs_go_to_a_destination_that_is_named_and_to_another_afterwards(
    line: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONE_URL", f"sqlite:///{tmp_path / 'one.db'}")
    assert "No destination is saved yet" in line("destinations", "list").out
    for name, variable in (("one", "ONE_URL"), ("other", "OTHER_URL")):
        added = line("destinations", "add", name, "sql_table", "--set", f"url=env:{variable}", "--set", "table=labels")
        assert added.status == 0 and f"--to {name}" in added.err
    listed = line("destinations", "list").out
    assert "one: sql_table" in listed and '"env:ONE_URL"' in listed and "sink webhook: Webhook; settings url" in listed

    source = line.write("docs.jsonl", *documents(3))
    nowhere = line.classify(source, "--to", "nowhere")
    assert nowhere.status == 2 and "There is no destination 'nowhere'. There are: one, other." in nowhere.err
    done = line.classify(source, "--to", "one", "--json")
    assert done.status == 0 and "3 outputs were delivered to one." in done.err
    assert done.summary["succeeded"] == 3 and rows(tmp_path / "one.db") == 3

    failed = line("deliver", str(done.summary["run"]), "--to", "other")
    assert failed.status == 3 and "set the environment variable OTHER_URL" in failed.err
    none = line("deliver", str(done.summary["run"]))
    assert none.status == 0 and "No delivery of it has failed." in none.err, "it is still tried"
    assert line("deliver", "77", "--to", "one").status == 2


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (("a b", "webhook", "--set", "url=https://x", "--set", "secret=env:X"), "cannot be the name of a destination"),
        (("x", "nowhere"), "There is no sink 'nowhere'"),
        (("x", "webhook", "--set", "url=http://example.com", "--set", "secret=env:X"), "write an address with https"),
        (("x", "webhook", "--set", "url=https://x", "--set", "secret=hunter22"), "write env:NAME"),
    ],
)
def test_a_destination_that_makes_no_sense_is_bad_usage(line: CommandLine, words: tuple[str, ...], fault: str) -> None:
    done = line("destinations", "add", *words)
    assert done.status == 2 and fault in done.err and "hunter22" not in done.err
