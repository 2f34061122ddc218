"""Bad usage ends with status 2 and a message that names the fault, before anything is started."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.command_line import CommandLine

from webapp.cli.app import COMMANDS

GOOD = {"key": "a", "text": "about alpha"}
PIXEL = b"\x89PNG\r\n\x1a\n not a picture at all"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run"], ["Missing argument 'PLUGIN'"]),
        (["run", "classify"], ["Missing argument 'INPUT'"]),
        (["run", "classfy", "docs.jsonl"], ["no task 'classfy'", "classify"]),
        (["run", "classify", "docs.jsonl"], ["'labels' is required"]),
        (["run", "classify", "docs.jsonl", "--set", "labels=one"], ["labels"]),
        (["run", "classify", "docs.jsonl", "--set", "labels"], ["'labels' is not NAME=VALUE"]),
        (["run", "classify", "docs.jsonl", "--set", "labels=a,b", "--set", "labels=c,d"], ["set twice"]),
        (["run", "classify", "docs.jsonl", "--set", "labels=a,b", "--set", "lables=c"], ["'lables' is unknown"]),
        (
            ["run", "classify", "docs.jsonl", "--set", "max_tokens=many", "--set", "nonsense=1"],
            ["'max_tokens'", "'many'", "'nonsense' is unknown", "'labels' is required"],
        ),
        (["run", "summarise", "docs.jsonl", "--timeout", "soon"], ["--timeout", "'soon'"]),
        (["run", "summarise", "docs.jsonl", "--timeout", "-1"], ["--timeout"]),
        (["run", "summarise", "docs.jsonl", "--out", "out.xlsx"], ["out.xlsx", ".jsonl or .csv"]),
        (["run", "summarise", "docs.jsonl", "--out", "nowhere/out.jsonl"], ["nowhere/out.jsonl", "does not exist"]),
        (["run", "summarise", "docs.jsonl", "--out", "folder.jsonl"], ["folder.jsonl", "is a folder"]),
        (["run", "summarise", "docs.jsonl", "--nonsense"], ["--nonsense"]),
        (["run", "summarise", "missing.jsonl"], ["missing.jsonl", "check the name"]),
        (["run", "summarise", "empty.jsonl"], ["empty.jsonl", "is empty"]),
        (["run", "summarise", "blank.jsonl"], ["blank.jsonl", "no records"]),
        (["run", "summarise", "docs.json"], ["docs.json", ".jsonl"]),
        (["run", "summarise", "utf16.jsonl"], ["utf16.jsonl", "UTF-16"]),
        (["run", "summarise", "hollow"], ["hollow", "no text files or images"]),
        (["run", "summarise", "mixed"], ["mixed", "one kind"]),
        (["run", "summarise", "header.csv"], ["header.csv", "no records below"]),
        (["run", "summarise", "keyless.csv"], ["keyless.csv", 'no column "key"', "--key-field"]),
        (["run", "summarise", 'it\'s "here" 😀.jsonl'], ["it's", "😀", "check the name"]),
        (["status", "first"], ["'first'"]),
        (["status", "0"], ["0"]),
        (["status", "99999999999999999999"], ["99999999999999999999"]),
        (["resubmit"], ["Missing argument 'RUN'"]),
        (["resubmit", "1", "--class", "everything"], ["everything"]),
        (["resubmit", "1", "--out", "nowhere/out.csv"], ["nowhere/out.csv"]),
        (["cancel"], ["Missing argument 'RUN'"]),
        (["export", "1"], ["--out"]),
        (["export", "1", "--out", "out.txt"], ["out.txt"]),
        (["plugins", "check", "nope"], ["no plugin 'nope', and no such path"]),
        (["plugins", "check", "."], ["has no pyproject.toml"]),
        (["plugins", "new"], ["Missing argument 'NAME'"]),
        (["plugins", "new", "classify"], ["'classify' is taken by plugin 'classify'"]),
        (["nonsense"], ["No such command 'nonsense'"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_usage_is_told_before_anything_starts(bare: CommandLine, arguments: list[str], words: list[str]) -> None:
    bare.write("docs.jsonl", GOOD)
    bare.write("docs.json", GOOD)
    bare.write("empty.jsonl")
    bare.write("blank.jsonl", b"\n  \n")
    bare.write("utf16.jsonl", '{"key":"a","text":"b"}\n'.encode("utf-16"))
    bare.write("header.csv", b"key,text\n")
    bare.write("keyless.csv", b"id,text\n1,one\n")
    for folder in ("folder.jsonl", "hollow", "mixed"):
        (bare.folder / folder).mkdir()
    bare.write("mixed/a.txt", b"text")
    bare.write("mixed/b.png", PIXEL)

    done = bare(*arguments)
    assert (done.status, done.out) == (2, ""), done
    for word in words:
        assert word in done.err, done.err


def test_settings_of_the_environment_are_all_told_at_once(bare: CommandLine) -> None:
    done = bare(
        "status",
        BATCHDESK_PORT="high",
        BATCHDESK_POL_SCHEDULE="*:1",
        BATCHDESK_POLL_SCHEDULE="often",
        BATCHDESK_MAX_ATTEMPTS="0",
    )
    assert done.status == 2
    for word in ("BATCHDESK_PORT", "'high'", "BATCHDESK_POL_SCHEDULE is not a setting", "Did you mean"):
        assert word in done.err
    assert "BATCHDESK_POLL_SCHEDULE: 'often'" in done.err and "BATCHDESK_MAX_ATTEMPTS" in done.err


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"ANTHROPIC_BASE_URL": "http://127.0.0.1:9"}, "without ANTHROPIC_API_KEY"),
        ({"DATABASE_URL": "postgresql://localhost/x"}, "BATCHDESK_SECRET_KEY is required"),
        (
            {"ANTHROPIC_API_KEY": "key", "BATCHDESK_UNKNOWN_GRACE": "5"},
            "BATCHDESK_UNKNOWN_GRACE: 5 is below the request timeout",
        ),
    ],
    ids=["address without key", "database without secret", "grace below the timeout"],
)
def test_settings_that_lack_their_companion_are_refused(bare: CommandLine, environ: dict[str, str], words: str) -> None:
    bare.write("docs.jsonl", GOOD)
    done = bare("run", "summarise", "docs.jsonl", **environ)
    assert done.status == 2 and words in done.err


def test_a_database_that_does_not_answer_is_told_in_words(bare: CommandLine) -> None:
    away = "postgresql://nobody@127.0.0.1:9/none"
    done = bare("status", DATABASE_URL=away, REDIS_URL="redis://127.0.0.1:9", BATCHDESK_SECRET_KEY="x" * 32)
    assert done.status == 2
    assert "The database does not answer" in done.err and "batchdesk doctor" in done.err


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS), ["plugins", "list"], ["plugins", "check"]])
def test_every_command_has_help(bare: CommandLine, command: list[str]) -> None:
    done = bare(*command, "--help")
    assert (done.status, done.err) == (0, "")
    assert done.out.startswith("Usage:")


def test_the_options_of_the_contract_are_there(bare: CommandLine) -> None:
    text = bare("run", "--help").out
    options = ("set", "key-field", "text-field", "out", "json", "timeout", "skip-bad", "dry-run")
    assert all(f"--{name}" in text for name in options)
    for name in ("retry", "fix", "account", "output", "stopped", "all"):
        assert name in bare("resubmit", "--help").out
    assert "--no-wait" in bare("resubmit", "--help").out


def test_plugins_are_listed(bare: CommandLine) -> None:
    listed = bare("plugins", "list")
    assert (listed.status, listed.err) == (0, "")
    assert all(f"  {task}:" in listed.out for task in ("classify", "summarise", "alt_text", "extract", "evaluate"))
    assert "labels (needed)" in listed.out
    safe = bare("plugins", "list", BATCHDESK_SAFE_MODE="1")
    assert (safe.status, safe.out) == (0, "") and "Safe mode is on" in safe.err


def test_doctor_says_what_is_missing_and_how_to_mend_it(bare: CommandLine) -> None:
    done = bare("doctor")
    assert done.status == 1
    assert "The embedded services are not up" in done.out and "batchdesk up" in done.out


def test_a_dry_run_needs_no_services_and_sends_nothing(bare: CommandLine) -> None:
    bare.write("docs.jsonl", GOOD, {"key": "b", "text": "about beta"})
    done = bare("run", "summarise", "docs.jsonl", "--dry-run", "--json", BATCHDESK_BATCH_MAX_REQUESTS="1")
    assert done.status == 0, done.err
    assert (done.summary["requests"], done.summary["batches"], done.summary["bad_records"]) == (2, 2, 0)
    assert "Nothing was stored or sent" in done.err
    shown = bare("run", "summarise", "docs.jsonl", "--dry-run")
    assert '"max_tokens"' in shown.out and "about alpha" in shown.out


WARM = """
from webapp.hooks import Task, hookimpl, ModelSettings

class Warm(Task[ModelSettings]):
    name = "warm"
    Settings = ModelSettings

    def shared_params(self, settings):
        return {"model": settings.model, "max_tokens": 9 SHARED}

    def request_params(self, subject, settings):
        return {"messages": [{"role": "user", "content": subject.text}] OWN}

    def process(self, subject, message, settings):
        return message.text

@hookimpl
def register_tasks():
    return [Warm()]
"""


@pytest.mark.parametrize(("part", "status"), [("SHARED", 2), ("OWN", 3)])
def test_a_dry_run_catches_a_parameter_that_would_fail_each_request(
    bare: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str, status: int
) -> None:
    """I17: an explicit temperature is a 400 on newer models: told before a run, and before money is spent."""
    plugins = tmp_path / "plugins"
    plugins.mkdir()
    source = WARM.replace(part, ', "temperature": 0.5')
    (plugins / "warm.py").write_text(source.replace("SHARED", "").replace("OWN", ""))
    monkeypatch.setattr("webapp.cli.run.PLUGINS", plugins)
    bare.write("docs.jsonl", GOOD)
    done = bare("run", "warm", "docs.jsonl", "--dry-run")
    assert done.status == status, done.err
    assert "'temperature'" in done.err and "removed sampling parameters" in done.err


def test_a_dry_run_names_a_model_that_nobody_knows(bare: CommandLine) -> None:
    """I12, I17: each of its requests would fail, or none would have a price."""
    bare.write("docs.jsonl", GOOD)
    done = bare("run", "summarise", "docs.jsonl", "--dry-run", "--set", "model=claude-does-not-exist-9")
    assert "Model 'claude-does-not-exist-9' is not in the price table" in done.err
    assert "price table" not in bare("run", "summarise", "docs.jsonl", "--dry-run").err


def test_a_dry_run_names_bad_records(bare: CommandLine, tmp_path: Path) -> None:
    bare.write("docs.jsonl", GOOD, b"no json\n")
    done = bare("run", "summarise", "docs.jsonl", "--dry-run")
    assert done.status == 2 and "docs.jsonl, line 2" in done.err
    skipping = bare("run", "summarise", "docs.jsonl", "--dry-run", "--skip-bad", "--json")
    assert skipping.status == 0 and skipping.summary["bad_records"] == skipping.summary["requests"] == 1
