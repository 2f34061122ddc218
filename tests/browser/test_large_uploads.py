"""A file of 60 MB goes through the web and a worker, and neither grows with it."""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from flask import Flask
from playwright.sync_api import Page, expect
from support.browser import environment, sign_in
from support.desk import DeskDriver
from support.people import make_person
from support.uploading import Uploads

pytestmark = pytest.mark.browser

ROOT = Path(__file__).resolve().parents[2]
RECORDS = 100_000
MOST_MB = 30  # by which a process may grow, for a file twice as large
LINE = b'{"key":"record-%06d","text":"' + b"word " * 112 + b'"}\n'


def test_neither_the_web_nor_a_worker_grows_with_a_file(
    page: Page, dashboard: str, app: Flask, desk: DeskDriver, tmp_path: Path
) -> None:
    large = tmp_path / "large.jsonl"
    with large.open("wb") as stream:
        stream.writelines(LINE % n for n in range(RECORDS))
    size = large.stat().st_size
    assert size > 55_000_000
    sign_in(page, dashboard, make_person("operator"))
    page.goto(f"{dashboard}/datasets/new")
    page.get_by_label("File").set_input_files(large)

    for one in webs():
        Path(f"/proc/{one.pid}/clear_refs").write_text("5")  # the peak so far is that of checking a password
    before = {one.pid: own_mb(one.pid, "VmRSS") for one in webs()}
    page.get_by_role("button", name="Upload").click()
    expect(page.get_by_role("rowheader", name="record-000009")).to_be_visible()
    grown = max(own_mb(pid, "VmHWM") - mb for pid, mb in before.items())
    print(f"the web grew by {grown:.1f} MB")
    assert grown < MOST_MB

    sent = Uploads(desk)
    assert sent.row(1).size == size
    sent.ask(1)
    # As `make bench` measures: in a process without our own data.
    answer = subprocess.run(
        (sys.executable, "-m", "bench.memory", "import", "1"),
        cwd=ROOT,
        env=environment(app.extensions["batchdesk"].settings),
        stdout=subprocess.PIPE,
        check=True,
    )
    grown = int(answer.stdout) / 1e6
    print(f"the worker grew by {grown:.1f} MB")
    assert sent.row(1).added == RECORDS
    assert grown < MOST_MB


def webs() -> list[psutil.Process]:
    """The processes of the web server that this one has started."""
    found = []
    for one in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # a process of the browser's that ends just now; or it has ended
            if "gunicorn" in " ".join(one.cmdline()):
                found.append(one)
    return found


def own_mb(pid: int, name: str) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    line = next(line for line in lines if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024 / 1e6
