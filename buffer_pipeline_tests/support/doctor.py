"""The output of `doctor`, and the logins that run it."""

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.engine import make_url

from buffer_pipeline.cli.app import main
from buffer_pipeline.database import database_clock, make_engine
from buffer_pipeline.embedded import DAGSTER, EmbeddedServer
from buffer_pipeline.notifications.outbox import Outcome, Route, Settlement, claim, dispatch, settle
from buffer_pipeline_tests.support.installed import Installed

CHECKS: Final = [
    "database", "migration", "roles", "clock", "currencies", "schedules", "daemon", "runs", "last release",
    "overdue", "frozen", "payouts", "outbox", "books", "disk",
]  # fmt: skip


@dataclass(frozen=True)
class Found:
    """The result of `doctor`: its exit code, and each check's line."""

    code: int
    ok: bool
    lines: dict[str, dict[str, Any]]

    @property
    def wrong(self) -> list[str]:
        """The checks that failed."""
        return [name for name, line in self.lines.items() if not line["ok"]]


Doctor = Callable[[], Found]


@contextmanager
def doctor_of(
    installed: Installed,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Iterator[Doctor]:
    """Yield a function that runs `doctor --json` in this process, with Dagster's login."""
    monkeypatch.setenv("BUFFER_DATABASE_URL", database_url.replace("//buffer@", f"//{DAGSTER}@"))
    monkeypatch.setenv("BUFFER_DAGSTER_DATABASE_URL", installed.storage_url)
    monkeypatch.setenv("DAGSTER_HOME", str(installed.home))
    handler = signal.getsignal(signal.SIGTERM)

    def call() -> Found:
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main(["doctor", "--json"])
        output = capsys.readouterr()
        assert "Traceback" not in output.err
        answer = json.loads(output.out)
        assert isinstance(stopped.value.code, int)
        lines = {line["check"]: line for line in answer["checks"]}
        assert list(lines) == CHECKS
        assert all((line["advice"] is None) == line["ok"] for line in lines.values())
        return Found(stopped.value.code, answer["ok"], lines)

    yield call
    signal.signal(signal.SIGTERM, handler)


def require_wrong(found: Found, check: str, *words: str) -> None:
    """Assert that the check failed, the exit code is 1, and its line has these words."""
    assert (found.code, found.ok) == (1, False)
    assert check in found.wrong
    line = found.lines[check]
    for word in words:
        assert word in f"{line['fact']} -> {line['advice']}"


def give_up(connection: Connection, *, endpoint: str) -> None:
    """Turn an endpoint's messages into dead letters, as the drain does."""
    now = database_clock(connection)
    dispatch(connection, [Route(name=endpoint)], batch_limit=10, now=now)
    claimed = claim(
        connection, endpoint=endpoint, owners_limit=10, per_owner_limit=10, lease_seconds=60, now=now
    )
    assert claimed
    settlements = [Settlement(claimed=each, outcome=Outcome.DEAD, reason="gone") for each in claimed]
    assert settle(connection, settlements, now=now)


@contextmanager
def superuser(server: EmbeddedServer) -> Iterator[Callable[[str], None]]:
    """Yield a function that runs a statement as the server's superuser."""
    admin = make_engine(server.url("postgres", user="postgres")).execution_options(
        isolation_level="AUTOCOMMIT"
    )
    with admin.connect() as connection:

        def execute(statement: str) -> None:
            connection.execute(text(statement))

        yield execute
    admin.dispose()


@contextmanager
def own_role(server: EmbeddedServer, rights: str) -> Iterator[str]:
    """Yield the name of a role for one test."""
    name = f"login_{os.urandom(6).hex()}"
    with superuser(server) as execute:
        execute(f"CREATE ROLE {name} {rights}")
        yield name
        execute(f"DROP ROLE {name}")


@contextmanager
def unread_slot(server: EmbeddedServer, name: str) -> Iterator[None]:
    """Keep 40 WAL files with a replication slot that nobody reads."""
    with superuser(server) as execute:
        execute(f"SELECT pg_create_physical_replication_slot('{name}', true)")
        try:
            for _ in range(40):
                execute("SELECT pg_logical_emit_message(false, 'doctor', 'x')")
                execute("SELECT pg_switch_wal()")
            yield
        finally:
            execute(f"SELECT pg_drop_replication_slot('{name}')")


def as_login(url: str, name: str) -> str:
    """Return the URL for another login."""
    return make_url(url).set(username=name).render_as_string(hide_password=False)
