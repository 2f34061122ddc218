"""A script that owns a home and does what it is told on stdin, one JSON object a line.

The tests of this folder run it, so that an owner can be killed, or be another user.
"""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Any

import psycopg

from webapp.errors import LocalServicesError
from webapp.local import Child, Services, Supervisor


def answer(supervisor: Supervisor, services: Services, order: dict[str, Any]) -> object:
    """Carry one order out."""
    match order["do"]:
        case "sql":
            with psycopg.connect(services.database_url, autocommit=True) as connection:
                cursor = connection.execute(order["sql"])
                return cursor.fetchall() if cursor.description else None
        case "redis":
            return ask_redis(services.redis_url, order["words"])
        case "child":
            argv = [sys.executable, "-c", order["code"]]
            supervisor.start(Child(order["name"], argv, {}, stop_seconds=order.get("stop_seconds", 5.0)))
            return supervisor.pids()[order["name"]]
        case "pids":
            return supervisor.pids()
        case other:
            raise ValueError(other)


def ask_redis(url: str, words: list[str]) -> object:
    import redis  # only the few owners that are asked pay for this import

    try:
        with redis.Redis.from_url(url, decode_responses=True) as client:
            return client.execute_command(*words)
    except redis.RedisError as error:
        return {"error": str(error)}


def say(thing: object) -> None:
    print(json.dumps(thing, default=str), flush=True)


def main(home: Path, durable: bool) -> int:
    def log(message: str) -> None:
        print(message, file=sys.stderr, flush=True)

    with Supervisor(home, log, durable=durable) as supervisor:
        try:
            services = supervisor.start_services()
        except LocalServicesError as error:
            say({"refused": str(error)})
            return 1
        say({"services": vars(services), "pids": supervisor.pids()})
        for line in sys.stdin:
            try:
                say({"answer": answer(supervisor, services, json.loads(line))})
            except (psycopg.Error, LocalServicesError) as error:
                say({"error": str(error)})
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        sys.exit(main(Path(sys.argv[1]), sys.argv[2] == "durable"))
    except KeyboardInterrupt:
        sys.exit(130)
