"""The sample: believable, sound, and the same each time."""

from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, func, select

from buffer_pipeline.database import database_clock
from buffer_pipeline.hold import HoldState
from buffer_pipeline.policy import Policy
from buffer_pipeline.reconcile import reconcile
from buffer_pipeline.reports import due_holds, list_backjobs, list_holds, stuck_holds
from buffer_pipeline.sample import books_are_empty, load_sample
from buffer_pipeline.tables import hold_freeze
from buffer_pipeline.wallet import deposit
from buffer_pipeline_tests.builders import place_hold

NOW = datetime(2026, 3, 20, 9, 30, tzinfo=UTC)


def test_the_sample_is_sound(connection: Connection) -> None:
    """Every invariant of the books holds in the sample."""
    load_sample(connection, now=NOW)

    violations = reconcile(connection)

    assert violations == []


def test_a_dozen_are_due_and_the_rest_is_spread_over_the_days_to_come(connection: Connection) -> None:
    """There is something for the first run, and something for each of the next days."""
    holds = load_sample(connection, now=NOW)

    due_now = due_holds(connection, due_by=NOW).holds
    due_by_day = [due_holds(connection, due_by=NOW + timedelta(days=day)).holds for day in range(8)]

    assert holds == 60
    assert due_now == 12
    assert due_by_day == sorted(set(due_by_day))
    assert {row["currency"] for row in list_holds(connection)} == {"PHP", "JPY"}
    assert len({row["payee"] for row in list_holds(connection)}) == 12


def test_the_sample_has_freezes_of_each_kind(connection: Connection) -> None:
    """Two backjobs are open, one long enough to be stuck; one was rejected; admin and risk hold one each."""
    load_sample(connection, now=NOW)

    standing = connection.execute(
        select(hold_freeze.c.kind, func.count(hold_freeze.c.backjob_id.distinct()))
        .where(hold_freeze.c.closed_at.is_(None))
        .group_by(hold_freeze.c.kind)
    )
    open_kinds = {row[0]: row[1] for row in standing}
    states = sorted(row["state"] for row in list_backjobs(connection))
    stuck = stuck_holds(connection, now=NOW, older_than=Policy().stuck_after)

    assert states == ["OPEN", "OPEN", "REJECTED"]
    assert open_kinds == {"BACKJOB": 2, "ADMIN": 0, "RISK": 0}
    assert len({row["job"] for row in stuck}) == 1
    assert {tuple(row["kinds"]) for row in stuck} == {("BACKJOB",)}


def test_the_sample_is_the_same_each_time(connection: Connection) -> None:
    """Two loads at the same moment give the same holds."""
    columns = ("reference", "job", "payee", "payer", "amount_minor", "currency", "state", "release_date")
    loads = []
    for _ in range(2):
        attempt = connection.begin_nested()
        load_sample(connection, now=NOW)
        loads.append([tuple(row[name] for name in columns) for row in list_holds(connection)])
        attempt.rollback()

    first, second = loads

    assert first == second
    assert len({row[0] for row in first}) == 60


def test_the_sample_loads_at_any_moment(connection: Connection) -> None:
    """The database's own clock will do; nothing lies in its future but release dates."""
    now = database_clock(connection)

    load_sample(connection, now=now)

    assert all(row["held_at"] < now for row in list_holds(connection))
    assert list_holds(connection, state=HoldState.FROZEN)


def test_books_without_a_hold_or_a_wallet_are_empty(connection: Connection) -> None:
    """Books are empty until the first hold or the first wallet."""
    before = books_are_empty(connection)
    deposit(connection, owner="client-3", amount="1.00", currency="PHP", reference="first", now=NOW)
    with_a_wallet = books_are_empty(connection)
    place_hold(connection)
    with_a_hold = books_are_empty(connection)

    assert (before, with_a_wallet, with_a_hold) == (True, False, False)
