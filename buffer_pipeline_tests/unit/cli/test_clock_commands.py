"""`clock start`, `show` and `advance`, and `dev --clock`: what they print, refuse and survive."""

import signal
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, make_url, select

from buffer_pipeline.audit.reconcile import reconcile, tables_in_use
from buffer_pipeline.cli.dev_databases import Databases, prepare_books
from buffer_pipeline.errors import ClockRefused
from buffer_pipeline.settings import Settings
from buffer_pipeline.tables import transaction
from buffer_pipeline_tests.support.builders import place_hold, wallet_of
from buffer_pipeline_tests.support.commands import Run, hold_add
from buffer_pipeline_tests.support.hostile import digest
from buffer_pipeline_tests.support.processes import WAIT_SECONDS_MAX, start
from buffer_pipeline_tests.support.sandboxes import NEW_YEAR, clock_of, started

TIME = "2026-01-01T00:30Z"


def test_platforms_test_takes_three_commands(run: Run) -> None:
    """A hold of seven days, from the start of the sandbox to the balance."""
    began = run("clock", "start", TIME)
    hold_add(run)
    shown = run("clock", "show", "--json")
    six = run("clock", "advance", "6d")
    seven = run("clock", "advance", "25h", "--json")
    wallet = run("wallet", "show", "worker-17", "--json")

    assert began.out == "The books are a sandbox now. Its clock is at 2026-01-01T00:30:00Z.\n"
    assert shown.json == {"now": "2026-01-01T00:30:00Z", "advance_to": None, "daily_payouts": False}
    assert six.out.splitlines()[0] == "The clock is at 2026-01-07T00:30:00Z."
    assert seven.json["released"] == {"PHP": "1250.50"}
    assert seven.json["now"] == "2026-01-08T01:30:00Z"
    assert wallet.json[0]["balance"] == "1250.50"


def test_payouts_of_a_sandbox_are_asked_for(run: Run) -> None:
    """With an option of its start."""
    made = run("clock", "start", TIME, "--daily-payouts", "--json")

    assert made.json["daily_payouts"] is True


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["start", "yesterday"], "clock 'yesterday': not an ISO 8601 time"),
        (["start", "2026-01-01T00:00"], "has no time zone"),
        (["start", "3500-01-01T00:00Z"], "outside the years"),
        (["start", TIME], "a sandbox already"),
        (["advance"], "no advance is unfinished"),
        (["advance", "soon"], "duration 'soon': needs a number of days"),
        (["advance", "--to", "2025-12-31T00:00Z"], "never goes back"),
        (["advance", "400d"], "more than a year"),
        (["advance", "1d", "--to", "2026-02-01T00:00Z"], "not both"),
    ],
)
def test_wrong_commands_are_refused_by_name(
    run: Run, engine: Engine, arguments: list[str], said: str
) -> None:
    """On a sandbox, and nothing is written."""
    started(engine)
    before = digest(engine)

    refused = run("clock", *arguments)

    assert refused.code == 1
    assert said in refused.err
    assert digest(engine) == before


@pytest.mark.parametrize("arguments", [["start", TIME], ["show"], ["advance", "7d"]])
def test_real_books_are_refused(run: Run, engine: Engine, arguments: list[str]) -> None:
    """Each command says that they are real, and writes nothing."""
    with engine.begin() as connection:
        place_hold(connection)
    before = digest(engine)

    refused = run("clock", *arguments, "--json")

    assert refused.code == 1
    assert refused.json["error"]["type"] == "ClockRefused"
    assert digest(engine) == before


def test_wrong_time_makes_no_books(run: Run, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is read before the folder is made."""
    monkeypatch.delenv("BUFFER_DATABASE_URL")
    monkeypatch.setenv("BUFFER_HOME", str(home))

    assert run("clock", "start", "soon").code == 1
    assert not home.exists()


def killed_on_the_way(database_url: str, engine: Engine, *arguments: str) -> None:
    """Run a command, and kill it once it has moved the clock."""
    before = clock_of(engine).now
    process = start(*arguments, BUFFER_DATABASE_URL=database_url)
    deadline = time.monotonic() + WAIT_SECONDS_MAX
    while clock_of(engine).now == before:
        assert process.poll() is None
        assert time.monotonic() < deadline
    process.kill()
    process.communicate(timeout=WAIT_SECONDS_MAX)
    assert process.returncode == -signal.SIGKILL


def test_killed_command_goes_on_when_it_is_repeated(database_url: str, engine: Engine) -> None:
    """To the same end, with each hold released once in its hour."""
    started(engine)
    hours = (1, 5, 40, 200, 470)
    with engine.begin() as connection:
        for number in hours:
            place_hold(
                connection,
                held_at=NEW_YEAR,
                release_date=NEW_YEAR + timedelta(hours=number),
                job=f"job-{number}",
            )

    for _ in range(2):
        killed_on_the_way(database_url, engine, "clock", "advance", "20d")
    process = start("clock", "advance", "20d", BUFFER_DATABASE_URL=database_url)
    process.communicate(timeout=WAIT_SECONDS_MAX)

    assert process.returncode == 0
    assert clock_of(engine).now == NEW_YEAR + timedelta(days=20)
    with engine.connect() as connection:
        times = connection.scalars(
            select(transaction.c.recorded_at)
            .where(transaction.c.type == "EARNING")
            .order_by(transaction.c.transaction_id)
        ).all()
        assert times == [NEW_YEAR + timedelta(hours=number + 0.5) for number in hours]
        assert wallet_of(connection, "worker-17").balance_minor == 500_000
        assert reconcile(connection) == []


def prepared(url: str, *, clock: datetime | None, sample: bool) -> list[str]:
    """Do what `dev` does with the books before it starts Dagster; return what it says."""
    said: list[str] = []
    books_url = make_url(url)
    databases = Databases(books_url, books_url, books_url)
    prepare_books(Settings(database_url=url), databases, sample=sample, clock=clock, say=said.append)
    return said


def test_dev_makes_a_sandbox_of_new_books(database_url: str, engine: Engine) -> None:
    """With a sample that ends at its time. The next start leaves the clock where it is."""
    made = prepared(database_url, clock=NEW_YEAR, sample=True)
    again = prepared(database_url, clock=datetime(2027, 1, 1, tzinfo=UTC), sample=True)

    assert made[0] == "The books are a sandbox now. Its clock is at 2026-01-01T00:30:00Z."
    assert again == ["The books are a sandbox already, whose clock stays at 2026-01-01T00:30:00Z."]
    with engine.connect() as connection:
        assert "transaction" in tables_in_use(connection)
        latest = connection.scalars(select(transaction.c.recorded_at)).all()
    assert NEW_YEAR - timedelta(days=1) < max(latest) <= NEW_YEAR


def test_dev_refuses_a_clock_for_real_books(database_url: str, engine: Engine) -> None:
    """They stay real."""
    with engine.begin() as connection:
        place_hold(connection)
    before = digest(engine)

    with pytest.raises(ClockRefused, match="not empty"):
        prepared(database_url, clock=NEW_YEAR, sample=False)

    assert digest(engine) == before
