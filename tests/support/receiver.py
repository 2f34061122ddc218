"""A web server on this machine that takes posts, and answers as it is told to; for tests that deliver over HTTP."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

HANG = 0  # as an answer: none, until the server ends


@dataclass
class Post:
    """One post as it came."""

    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Receiver:
    """What came, and what is answered: one status after the other, then 200.

    :param headers: of answers that are not 200.
    """

    url: str = ""
    posts: list[Post] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    over: threading.Event = field(default_factory=threading.Event)

    def taken(self) -> dict[str, bytes]:
        """What a careful receiver keeps: of each idempotency key the first body."""
        kept: dict[str, bytes] = {}
        for post in self.posts:
            kept.setdefault(post.headers["idempotency-key"], post.body)
        return kept


@contextmanager
def receiving() -> Iterator[Receiver]:
    """A receiver that is up."""
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            receiver.posts.append(Post(self.path, headers, body))
            status = receiver.answers.pop(0) if receiver.answers else 200
            if status == HANG:
                receiver.over.wait()
                return
            self.send_response(status)
            for name, value in receiver.headers.items() if status != 200 else ():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(b"so it is")

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    receiver.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield receiver
    finally:
        receiver.over.set()
        server.shutdown()
        server.server_close()
        thread.join()
