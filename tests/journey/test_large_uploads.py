"""A file of 60 MB goes through the web and a worker, and neither grows with it."""

from __future__ import annotations

import http.cookiejar
import os
import re
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
from flask import Flask
from support.browser import environment, served
from support.desk import DeskDriver
from support.people import PASSWORD, make_person
from support.uploading import Uploads

ROOT = Path(__file__).resolve().parents[2]
RECORDS = 100_000
MOST_MB = 30  # by which a process may grow, for a file twice as large
LINE = b'{"key":"record-%06d","text":"' + b"word " * 112 + b'"}\n'
BORDER = b"----a-border-between-the-parts"


def lines() -> Iterator[bytes]:
    for start in range(0, RECORDS, 1000):
        yield b"".join(LINE % n for n in range(start, start + 1000))


class Body:
    """A form with a file, made while it is sent."""

    def __init__(self, token: str) -> None:
        head = b'--%b\r\nContent-Disposition: form-data; name="csrf_token"\r\n\r\n%b\r\n' % (BORDER, token.encode())
        head += b'--%b\r\nContent-Disposition: form-data; name="file"; filename="large.jsonl"\r\n\r\n' % BORDER
        tail = b"\r\n--%b--\r\n" % BORDER
        self.file_size = sum(map(len, lines()))
        self.size = len(head) + self.file_size + len(tail)
        self._all = (part for source in ((head,), lines(), (tail,)) for part in source)

    def __iter__(self) -> Iterator[bytes]:
        return self._all


def test_neither_the_web_nor_a_worker_grows_with_a_file(app: Flask, desk: DeskDriver, tmp_path: Path) -> None:
    settings = app.extensions["batchdesk"].settings
    email = make_person("operator")
    with served(settings, tmp_path / "web.log") as base:
        opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()))
        opener.addheaders = [("Accept", "text/html")]
        fields = {"csrf_token": token(opener, f"{base}/login"), "email": email, "password": PASSWORD}
        opener.open(f"{base}/login", urllib.parse.urlencode(fields).encode()).close()
        body = Body(token(opener, f"{base}/datasets/new"))
        assert body.file_size > 57_000_000
        request = urllib.request.Request(f"{base}/datasets/new", data=body, method="POST")
        request.add_header("Content-Type", f"multipart/form-data; boundary={BORDER.decode()}")
        request.add_header("Content-Length", str(body.size))
        before = {process.pid: own_mb(process.pid, "VmRSS") for process in webs()}
        with opener.open(request) as response:
            assert "/datasets/uploads/1/" in response.url
            assert "record-000009" in response.read().decode()
        grown = max(own_mb(pid, "VmHWM") - mb for pid, mb in before.items())
    print(f"web: {grown:.1f} MB")
    assert grown < MOST_MB

    sent = Uploads(desk)
    assert sent.row(1).size == body.file_size
    sent.ask(1)
    answer = subprocess.run(
        (sys.executable, "-m", "bench.memory", "import", "1"),
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], **environment(settings)},
        stdout=subprocess.PIPE,
        check=True,
    )
    grown = int(answer.stdout) / 1e6
    print(f"worker: {grown:.1f} MB")
    assert sent.row(1).added == RECORDS
    assert grown < MOST_MB


def token(opener: urllib.request.OpenerDirector, address: str) -> str:
    with opener.open(address) as response:
        found = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', response.read().decode())
    assert found
    return found[1]


def webs() -> list[psutil.Process]:
    """The processes of the web server that this one has started."""
    return [one for one in psutil.Process().children(recursive=True) if "gunicorn" in " ".join(one.cmdline())]


def own_mb(pid: int, name: str) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    line = next(line for line in lines if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024 / 1e6
