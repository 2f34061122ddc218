"""The sandbox as a process: how fast it starts and stops, what it keeps, how much memory it takes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import anthropic
import pytest
from anthropic.types.messages import MessageBatch
from support.sandbox import ROOT, Sandbox, SandboxProcess
from support.sandbox_calls import call, params, requests, rows, run_batch


@pytest.fixture
def process(tmp_path: Path) -> Iterator[SandboxProcess]:
    """A sandbox in a process of its own, whose batches end at the next look."""
    with SandboxProcess(tmp_path / "sandbox", delay=0) as process:
        yield process


def test_it_starts_and_stops_at_once(tmp_path: Path) -> None:
    began = time.monotonic()
    sandbox = SandboxProcess(tmp_path / "sandbox")
    assert sandbox.call("GET", "/v1/messages/batches")["data"] == []
    sandbox.stop()
    assert sandbox.process.returncode == 0
    # A second is plenty for a machine that does nothing else; this one may be very busy.
    assert time.monotonic() - began < 15


def test_ctrl_c_stops_it_while_a_client_hangs(process: SandboxProcess) -> None:
    process.configure(create_faults="timeout_after:60")
    outcomes: list[Exception] = []

    def hang() -> None:
        with anthropic.Anthropic(api_key="key", base_url=process.url, max_retries=0) as client:
            try:
                client.messages.batches.create(requests=requests(1))
            except anthropic.APIError as error:
                outcomes.append(error)

    hanging = threading.Thread(target=hang)
    hanging.start()
    while not process.accepted():
        time.sleep(0.02)
    process.process.send_signal(signal.SIGINT)
    assert process.process.wait(30) == 0
    hanging.join(30)
    assert [type(outcome) for outcome in outcomes] == [anthropic.APIConnectionError]


def test_it_prints_its_url(tmp_path: Path) -> None:
    arguments = [sys.executable, "-m", "webapp.sandbox", "--folder", str(tmp_path / "sandbox")]
    process = subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        url = process.stdout.readline().strip()
        assert call(url, "GET", "/v1/models").status == 200
    finally:
        process.terminate()
        process.communicate(timeout=5)


@pytest.mark.parametrize("setting", ["colour=red", "delay=soon", "create_faults=explode"])
def test_a_bad_setting_stops_the_start_and_is_named(tmp_path: Path, setting: str) -> None:
    arguments = [sys.executable, "-m", "webapp.sandbox", "--folder", str(tmp_path), "--set", setting]
    ended = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, timeout=20, check=False)
    assert ended.returncode == 2
    assert setting.partition("=")[0] in ended.stderr


def test_a_port_in_use_is_told_without_a_traceback(shared: Sandbox, tmp_path: Path) -> None:
    port = shared.url.rpartition(":")[2]
    arguments = [sys.executable, "-m", "webapp.sandbox", "--folder", str(tmp_path), "--port", port]
    ended = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, timeout=20, check=False)
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    assert ended.stderr


@pytest.mark.parametrize("hard", [False, True])
def test_batches_time_and_results_outlive_a_restart(tmp_path: Path, hard: bool) -> None:
    with SandboxProcess(tmp_path / "sandbox", delay=100) as sandbox:
        batch = sandbox.call("POST", "/v1/messages/batches", {"requests": requests(5)})
        sandbox.advance(99)
        sandbox.kill() if hard else sandbox.stop()
    with (
        SandboxProcess(tmp_path / "sandbox") as sandbox,
        anthropic.Anthropic(api_key="key", base_url=sandbox.url, max_retries=0) as client,
    ):
        assert client.messages.batches.retrieve(batch["id"]).created_at.isoformat()[:19] == batch["created_at"][:19]
        sandbox.advance(100)
        ended = client.messages.batches.retrieve(batch["id"])
        assert ended.request_counts.succeeded == 5
        assert len(rows(client, batch["id"])) == 5
        assert len(sandbox.accepted()) == 5


def test_an_upload_that_was_cut_by_a_crash_is_swept_away(tmp_path: Path) -> None:
    leftover = tmp_path / "sandbox" / "uploads" / "upload.body"
    leftover.parent.mkdir(parents=True)
    leftover.write_bytes(b"half")
    with SandboxProcess(tmp_path / "sandbox"):
        assert not leftover.exists()


def test_many_clients_are_served_at_once(sandbox: Sandbox) -> None:
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            with anthropic.Anthropic(api_key=f"ws:{number}:key", base_url=sandbox.url, max_retries=0) as client:
                for _ in range(5):
                    batch = run_batch(client, requests(20))
                    assert len(rows(client, batch.id)) == 20
                assert len(client.messages.batches.list().data) == 5
        except BaseException as error:  # noqa: BLE001 - handed on to the test's own thread
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(sandbox.accepted()) == 6 * 5 * 20


def test_nothing_of_the_rest_of_the_project_is_loaded() -> None:
    code = (
        "import sys, webapp; before = set(sys.modules); import webapp.sandbox.__main__; "
        "print(*sorted(n for n in set(sys.modules) - before if n.startswith('webapp.') and "
        "not n.startswith('webapp.sandbox')), *sorted({'anthropic', 'sqlalchemy', 'PIL', 'pydantic'} & "
        "(set(sys.modules) - before)))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=30, check=True
    )
    assert ended.stdout.strip() == ""


class Body:
    """The body of a create of many requests of about 2.4 kB, made while it is sent."""

    def __init__(self, count: int) -> None:
        self._count = count
        asked = params("", system="You are brief. " * 20)
        asked["messages"] = [{"role": "user", "content": "Lorem ipsum dolor sit amet. " * 70}]
        self._params = json.dumps(asked).encode()

    def __iter__(self) -> Iterator[bytes]:
        yield b'{"requests":['
        for at in range(self._count):
            yield (b"," if at else b"") + b'{"custom_id":"r-%d","params":%b}' % (at, self._params)
        yield b"]}"

    def __len__(self) -> int:
        return sum(len(part) for part in self)


def peak_megabytes(process: SandboxProcess) -> float:
    status = Path(f"/proc/{process.process.pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from /proc")
@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_batch_of_the_largest_size_takes_little_memory(process: SandboxProcess, framing: str) -> None:
    count = 100_000 if framing == "length" else 20_000
    body = Body(count)
    size = len(body)
    assert size > (230_000_000 if framing == "length" else 40_000_000)
    process.call("GET", "/v1/messages/batches")
    idle = peak_megabytes(process)
    with anthropic.Anthropic(api_key="key", base_url=process.url, max_retries=0, timeout=120) as client:
        headers = {"headers": {"Content-Length": str(size)}} if framing == "length" else {}
        batch = client.post("/v1/messages/batches", content=body, cast_to=MessageBatch, options=headers)  # type: ignore[arg-type]
        assert batch.request_counts.processing == count
        assert client.messages.batches.retrieve(batch.id).request_counts.succeeded == count
        lines = 0
        with client.messages.batches.with_streaming_response.results(batch.id) as response:
            for chunk in response.iter_bytes(1 << 20):
                lines += chunk.count(b"\n")
    assert lines == count
    assert process.bill()["total"]["requests"] == count
    assert peak_megabytes(process) - idle < 80
    assert next((process.folder / "batches").glob("*.body")).stat().st_size == size
