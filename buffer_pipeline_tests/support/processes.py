"""Commands as separate processes, and the books that they work on."""

import os
import re
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from sqlalchemy import Connection, Engine, text

from buffer_pipeline.audit.reconcile import reconcile
from buffer_pipeline.database import database_clock
from buffer_pipeline.intake import Earning, add_many_pending_earnings
from buffer_pipeline_tests.support.builders import waiting_for_a_lock

WAIT_SECONDS_MAX = 120

COMMAND = (sys.executable, "-c", "from buffer_pipeline.cli.app import main; main()")


def start(*arguments: str, **settings: str) -> subprocess.Popen[str]:
    """Start a command with only these settings."""
    return start_on(subprocess.PIPE, *arguments, **settings)


def start_on(stderr: int, /, *arguments: str, **settings: str) -> subprocess.Popen[str]:
    """Start a command that writes its stderr to this file."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BUFFER_")}
    return subprocess.Popen(
        [*COMMAND, *arguments],
        env={**environment, **settings},
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> str:
    """Wait for a command that must succeed and return its stdout."""
    out, err = process.communicate(timeout=WAIT_SECONDS_MAX)
    assert process.returncode == 0, err
    return out


def wait_until(condition: Callable[[], bool]) -> None:
    """Poll for a condition in another process, with a deadline."""
    deadline = time.monotonic() + WAIT_SECONDS_MAX
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.01)


def hold_many(engine: Engine, *, holds: int, wallets: int) -> None:
    """Add `holds` earnings of 10.00 PHP that are all due."""
    with engine.begin() as connection:
        now = database_clock(connection)
        for first in range(0, holds, 5_000):
            add_many_pending_earnings(
                connection,
                [
                    Earning(
                        reference=f"earning-{number}",
                        job=f"job-{number}",
                        payee=f"worker-{number % wallets}",
                        payer="client-3",
                        amount="10.00",
                        currency="PHP",
                        held_at=now - timedelta(days=8) + timedelta(seconds=number),
                    )
                    for number in range(first, min(first + 5_000, holds))
                ],
                now=now,
            )


def figures(engine: Engine) -> tuple[int, int, int, list[object]]:
    """Return the number of released holds and EARNING transactions, all balances, and broken invariants."""
    with engine.connect() as connection:
        released = connection.execute(
            text("SELECT count(*) FROM buffer.hold_status WHERE state = 'RELEASED'")
        ).scalar_one()
        earnings = connection.execute(
            text("SELECT count(*) FROM buffer.transaction WHERE type = 'EARNING'")
        ).scalar_one()
        balances = connection.execute(text("SELECT sum(balance_minor) FROM buffer.wallet")).scalar_one()
        return released, earnings, int(balances), list(reconcile(connection))


def waiting(engine: Engine) -> int:
    """Return the number of sessions of these books that wait for a lock."""
    with engine.connect() as observer:
        return waiting_for_a_lock(observer)


_GATE = """
CREATE FUNCTION public.wait_at_gate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  WHILE NOT pg_try_advisory_xact_lock_shared(17) LOOP
    PERFORM pg_sleep(0.01);
  END LOOP;
  RETURN NEW;
END
$$;
CREATE TRIGGER batch_waits_at_gate BEFORE INSERT ON buffer.batch
FOR EACH ROW EXECUTE FUNCTION public.wait_at_gate();
"""


@contextmanager
def batches_at_a_gate(engine: Engine) -> Iterator[Connection]:
    """Make each release batch wait in its statement until the yielded connection's transaction ends.

    A batch that waited for a row lock would give up after LOCK_WAIT_SECONDS.
    """
    with engine.begin() as connection:
        connection.execute(text(_GATE))
    with engine.connect() as gate:
        gate.execute(text("SELECT pg_advisory_xact_lock(17)"))
        yield gate


def waiting_at_the_gate(engine: Engine) -> int:
    """Return the number of batches at the gate."""
    with engine.connect() as observer:
        sleeping: int = observer.execute(
            text(
                "SELECT count(*) FROM pg_stat_activity"
                " WHERE datname = current_database() AND wait_event = 'PgSleep'"
            )
        ).scalar_one()
    return sleeping


def line_with(process: subprocess.Popen[str], words: str) -> str:
    """Read the command's stderr until a line contains these words, and return the line."""
    assert process.stderr is not None
    for line in process.stderr:
        if words in line:
            return line
    raise AssertionError(f"it ended without saying {words!r}")


def read_until(terminal: int, shown: re.Pattern[str]) -> None:
    """Read a command's terminal output until it contains this text."""
    seen = ""
    while not shown.search(re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", seen)):
        assert select.select([terminal], [], [], WAIT_SECONDS_MAX)[0], seen
        seen += os.read(terminal, 4096).decode(errors="replace")
