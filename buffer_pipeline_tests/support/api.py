"""The HTTP API in a thread, on a real socket, with a key for each role."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final

import httpx
import uvicorn
from sqlalchemy import Engine, make_url, text

from buffer_pipeline.api.app import create_app
from buffer_pipeline.api.keys import KeyRole, make_key
from buffer_pipeline.database import database_clock, make_engine
from buffer_pipeline.embedded import API
from buffer_pipeline.settings import Settings

WAIT_SECONDS_MAX: Final = 60

SETTINGS: Final = Settings(payout_destination_wait_hours=0)

EARNING: Final = {
    "reference": "job-8-done",
    "job": "job-8",
    "payee": "worker-17",
    "payer": "client-3",
    "amount": "1250.50",
    "currency": "PHP",
}

_NUMBERS: Final = count(1)


@dataclass
class Caller:
    """A client with a key."""

    http: httpx.Client
    token: str

    def get(self, path: str, headers: dict[str, str] | None = None, **query: Any) -> httpx.Response:
        """Read."""
        return self.http.get(path, params=query or None, headers={**self._key(), **(headers or {})})

    def post(
        self, path: str, body: Any, *, key: str | None = None, method: str = "POST", **headers: str
    ) -> httpx.Response:
        """Write, with an idempotency key of its own if none is given."""
        sent = {"Idempotency-Key": key or f"k-{next(_NUMBERS)}", **self._key(), **headers}
        return self.http.request(method, path, json=body, headers=sent)

    def send(self, path: str, content: Any, **headers: str) -> httpx.Response:
        """Write these bytes."""
        sent = {
            "Idempotency-Key": f"k-{next(_NUMBERS)}",
            "Content-Type": "application/json",
            **self._key(),
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        return self.http.post(path, content=content, headers=sent)

    def _key(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}


@dataclass
class Api:
    """A running API, the owner's engine on its books, and a client for each role."""

    url: str
    engine: Engine
    callers: dict[KeyRole, Caller] = field(default_factory=dict)

    def is_waiting_for_a_lock(self) -> bool:
        """Return True if a session on the books waits for another one. Only a superuser sees that."""
        admin = make_engine(self.engine.url.set(username="postgres"))
        with admin.connect() as connection:
            waiting = connection.scalar(
                text(
                    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                    " AND wait_event_type = 'Lock'"
                )
            )
        admin.dispose()
        return bool(waiting)

    @property
    def platform(self) -> Caller:
        """The client with a key of this role."""
        return self.callers[KeyRole.PLATFORM]

    @property
    def operator(self) -> Caller:
        """The client with a key of this role."""
        return self.callers[KeyRole.OPERATOR]

    @property
    def payouts(self) -> Caller:
        """The client with a key of this role."""
        return self.callers[KeyRole.PAYOUTS]

    @property
    def reader(self) -> Caller:
        """The client with a key of this role."""
        return self.callers[KeyRole.READER]


def keys_for_all(engine: Engine) -> dict[KeyRole, str]:
    """Make a key of each role."""
    with engine.begin() as connection:
        now = database_clock(connection)
        return {
            role: make_key(connection, name=f"{role}-{next(_NUMBERS)}", role=role, now=now)
            for role in KeyRole
        }


@contextmanager
def served_by_thread(app: Any) -> Iterator[str]:
    """Serve an application on a free port until the end of the block. Yield its URL."""
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, access_log=False, lifespan="on")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    deadline = time.monotonic() + WAIT_SECONDS_MAX
    try:
        while not server.started:
            assert thread.is_alive()
            assert time.monotonic() < deadline, "the server does not start"
            time.sleep(0.01)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(WAIT_SECONDS_MAX)


@contextmanager
def running_api(database_url: str, *, settings: Settings = SETTINGS, connections: int = 8) -> Iterator[Api]:
    """Serve the API on the books of the owner's URL, as the login `api`."""
    engine = make_engine(database_url)
    app = create_app(make_url(database_url).set(username=API), settings, connections=connections)
    with (
        served_by_thread(app) as url,
        httpx.Client(base_url=url, timeout=WAIT_SECONDS_MAX, trust_env=False) as http,
    ):
        callers = {role: Caller(http, token) for role, token in keys_for_all(engine).items()}
        yield Api(url, engine, callers)
    engine.dispose()
