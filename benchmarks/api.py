"""The HTTP API compared with the verb called in Python, and with a bare FastAPI route that reads one row.

    uv run python -m benchmarks api

One process of uvicorn serves, and 8 threads call over a connection each, on the same cores. API and yardstick
take turns in one run. The verb is called by as many threads, each with a connection of its own.
"""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from itertools import count
from typing import Any, Final
from urllib.parse import urlsplit

from sqlalchemy import Engine

from benchmarks.figure import Figure
from benchmarks.reads import quantile
from benchmarks.server import BenchmarkServer
from buffer_pipeline.api.keys import KeyRole, make_key
from buffer_pipeline.database import database_clock
from buffer_pipeline.embedded import API
from buffer_pipeline.intake import add_pending_earnings

CLIENTS: Final = 8
SECONDS: Final = 5
ROUNDS: Final = 3
WRITE_GOAL: Final = 0.35
READ_GOAL: Final = 0.3
READS_GOAL: Final = 1_500

_NUMBERS: Final = count(1)

BARE: Final = """
import sys, threading, socket
import psycopg, uvicorn
from fastapi import FastAPI
app = FastAPI()
own = threading.local()
@app.get("/holds/{hold_id}")
def read(hold_id: int):
    if not hasattr(own, "connection"):
        own.connection = psycopg.connect(sys.argv[1])
    with own.connection.transaction():
        row = own.connection.execute("SELECT * FROM buffer.hold WHERE hold_id = %s", [hold_id]).fetchone()
    return {"hold_id": row[0], "row": [str(value) for value in row]}
listener = socket.socket()
listener.bind(("127.0.0.1", 0))
listener.listen(2048)
print('{"url": "http://127.0.0.1:%d"}' % listener.getsockname()[1], flush=True)
uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False)).run(sockets=[listener])
"""
"""The yardstick of reads."""


def measure(server: BenchmarkServer) -> list[Figure]:
    """Measure writes and reads in turns with their yardsticks."""
    with server.books() as database:
        engine = server.engine(database)
        with engine.begin() as connection:
            token = make_key(
                connection, name="benchmark", role=KeyRole.PLATFORM, now=database_clock(connection)
            )
            for number in range(1000):
                _add(connection, number=-number)
        rates: dict[str, list[float]] = {}
        seconds: dict[str, list[float]] = {}
        with (
            _started(
                [
                    *(sys.executable, "-c", "from buffer_pipeline.cli.app import main; main()"),
                    *("--json", "serve", "--port", "0", "--connections", str(CLIENTS)),
                ],
                {"BUFFER_DATABASE_URL": server.url(database, user=API)},
            ) as api,
            _started(
                [
                    sys.executable,
                    "-c",
                    BARE,
                    server.url(database).replace("postgresql+psycopg", "postgresql"),
                ],
                {},
            ) as bare,
        ):
            calls: dict[str, Callable[[], Callable[[], None]]] = {
                "POST /earnings": lambda: _writer(api, token),
                "the verb in Python": lambda: _verb(engine),
                "GET /holds/{id}": lambda: _reader(api, token),
                "a bare route": lambda: _reader(bare, token),
            }
            for turn in range(ROUNDS + 1):
                for name, make in calls.items():
                    taken = _run(make)
                    if turn:
                        rates.setdefault(name, []).append(len(taken) / SECONDS)
                        seconds.setdefault(name, []).extend(taken)
        engine.dispose()
    return [
        _figure(rates, "POST /earnings", "the verb in Python", goal=WRITE_GOAL),
        _figure(rates, "GET /holds/{id}", "a bare route", goal=READ_GOAL, rate_goal=READS_GOAL),
        *(_p99(name, seconds[name]) for name in ("POST /earnings", "GET /holds/{id}")),
    ]


def _middle(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def _figure(
    rates: dict[str, list[float]], name: str, yardstick: str, *, goal: float, rate_goal: float | None = None
) -> Figure:
    value, by = _middle(rates[name]), _middle(rates[yardstick])
    enough = rate_goal is not None and value >= rate_goal
    return Figure(
        benchmark="api",
        name=name,
        value=value,
        unit="a second",
        yardstick=yardstick,
        yardstick_value=by,
        ratio=value / by,
        goal=f"at least {goal} times as many" + (f", or {rate_goal:,.0f}" if rate_goal else ""),
        met=value / by >= goal or enough,
    )


def _p99(name: str, seconds: list[float]) -> Figure:
    return Figure(
        benchmark="api",
        name=f"{name}, p99",
        value=quantile(seconds, 0.99),
        unit="ms",
        yardstick="",
        yardstick_value=None,
        ratio=None,
        goal="only shown",
        met=None,
    )


def _run(make: Callable[[], Callable[[], None]]) -> list[float]:
    """Call in 8 threads for some seconds. Return how long each call took."""
    taken: list[float] = []
    end = time.monotonic() + SECONDS

    def work() -> None:
        call = make()
        while time.monotonic() < end:
            began = time.perf_counter()
            call()
            taken.append(time.perf_counter() - began)

    threads = [threading.Thread(target=work) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return taken


def _earning(number: int) -> dict[str, Any]:
    return {
        "reference": f"r-{number}",
        "job": f"job-{number}",
        "payee": f"worker-{number % 1000}",
        "payer": f"client-{number % 100}",
        "amount": "1250.50",
        "currency": "PHP",
    }


def _add(connection: Any, *, number: int) -> None:
    add_pending_earnings(connection, **_earning(number), now=database_clock(connection))


def _verb(engine: Engine) -> Callable[[], None]:
    def call() -> None:
        with engine.begin() as connection:
            _add(connection, number=next(_NUMBERS))

    return call


def _http(url: str) -> Callable[..., None]:
    connection = HTTPConnection(urlsplit(url).netloc)

    def ask(method: str, path: str, headers: dict[str, str], body: bytes | None = None) -> None:
        connection.request(method, path, body=body, headers=headers)
        answer = connection.getresponse()
        text = answer.read()
        assert answer.status == 200, text

    return ask


def _writer(url: str, token: str) -> Callable[[], None]:
    ask = _http(url)

    def call() -> None:
        number = next(_NUMBERS)
        headers = {
            "Authorization": f"Bearer {token}",
            "Idempotency-Key": f"k-{number}",
            "Content-Type": "application/json",
        }
        ask("POST", "/earnings", headers, json.dumps(_earning(number)).encode())

    return call


def _reader(url: str, token: str) -> Callable[[], None]:
    ask = _http(url)
    headers = {"Authorization": f"Bearer {token}"}

    def call() -> None:
        ask("GET", f"/holds/{next(_NUMBERS) % 1000 + 1}", headers)

    return call


@contextmanager
def _started(command: list[str], settings: dict[str, str]) -> Iterator[str]:
    """Start a server that prints its URL as JSON; it is ended at the end."""
    process = subprocess.Popen(
        command,
        env={**os.environ, **settings},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    try:
        yield json.loads(process.stdout.readline())["url"]
    finally:
        process.kill()
        process.wait()
