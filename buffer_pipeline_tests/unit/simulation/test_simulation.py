"""A simulated marketplace: every kind of event happens, the books are sound, and a seed repeats it."""

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any, Final

import pytest
from sqlalchemy import Connection, Engine, func, select, text

from buffer_pipeline.audit.reconcile import reconcile
from buffer_pipeline.database import make_engine
from buffer_pipeline.embedded import EmbeddedServer
from buffer_pipeline.errors import InvalidInput, ReferenceConflict, Refused
from buffer_pipeline.hours import HOUR
from buffer_pipeline.notifications.contact import set_contact
from buffer_pipeline.reports.totals import totals
from buffer_pipeline.shares import ShareKind
from buffer_pipeline.simulation.marketplace import REFUSED_IN_LIFE, Marketplace
from buffer_pipeline.simulation.simulate import (
    OUTAGE_HOURS_MAX,
    OUTAGE_HOURS_MIN,
    Simulation,
    outages,
    simulate,
)
from buffer_pipeline.tables import (
    backjob,
    batch,
    delivery,
    hold,
    hold_freeze,
    hold_rule,
    notification,
    transaction,
    unsettled_hold,
)
from buffer_pipeline.wallet import deposit
from buffer_pipeline_tests.support.builders import NOON, books, place_hold
from buffer_pipeline_tests.support.databases import fresh_books

START: Final = datetime(2026, 3, 1, tzinfo=UTC)
DAYS: Final = 20
SEED: Final = 13
AFTER_WEEKS: Final = {
    ("ADVANCE", False),
    ("RECOVERY", False),
    ("RECOVERY", True),
    ("WRITE_OFF", False),
}
"""Types of transactions that twenty days need not have."""
REFUSED_AFTER_WEEKS: Final = {"DebtRefused", "PayoutRefused", "RuleRefused"}
"""Refusals that twenty days need not have."""


@dataclass(frozen=True, kw_only=True)
class Played:
    """A simulation and an engine on its books."""

    simulation: Simulation
    engine: Engine


@pytest.fixture(scope="module")
def played(server: EmbeddedServer) -> Iterator[Played]:
    """Twenty days, for read-only tests."""
    with fresh_books(server) as url:
        engine = make_engine(url)
        yield Played(simulation=simulate(engine, start=START, days=DAYS, seed=SEED), engine=engine)
        engine.dispose()


@pytest.fixture
def story(played: Played) -> Iterator[Connection]:
    """A connection to the books of the twenty days."""
    with played.engine.connect() as connection:
        yield connection


def rows_by_table(engine: Engine) -> dict[str, list[tuple[Any, ...]]]:
    """Return every row of every table; notifications without their ids, whose order varies."""
    with engine.connect() as connection:
        found = books(connection)
    found["notification"] = sorted((row[1:] for row in found["notification"]), key=repr)
    return found


# ---- what happens


def test_each_hour_is_a_tick_and_each_day_is_proved(played: Played) -> None:
    """480 hours and 20 checks, without a broken invariant."""
    simulation = played.simulation

    assert (simulation.ticks, simulation.checks) == (480, 20)
    assert simulation.violations == []
    assert simulation.now == datetime(2026, 3, 21, tzinfo=UTC)
    assert simulation.releases + simulation.hours_missed == simulation.ticks


def test_every_kind_of_event_occurs(played: Played, story: Connection) -> None:
    """Single and team earnings, releases, whole and partial refunds, every decision, freezes, wallets."""
    found = totals(story)
    teams = Counter(story.scalars(select(hold.c.job).where(hold.c.earning_id.is_(None))))
    early_by = set(story.scalars(select(batch.c.source).where(batch.c.kind == "EARLY")))
    closed = set(story.scalars(select(hold_freeze.c.kind).where(hold_freeze.c.closed_at.is_not(None))))
    admins = select(transaction.c.hold_id).where(
        transaction.c.type == "REFUND", transaction.c.backjob_id.is_(None)
    )
    # A tax is due at once, so no backjob freezes it.
    late = story.scalars(
        select(hold.c.hold_id).where(hold.c.reference.like("%-late-%"), hold.c.kind != ShareKind.TAX)
    ).all()
    covered = story.scalars(
        select(hold_freeze.c.hold_id).where(hold_freeze.c.kind == "BACKJOB", hold_freeze.c.hold_id.in_(late))
    )
    rejected = story.scalars(
        select(func.count()).where(backjob.c.state == "REJECTED").group_by(backjob.c.job)
    )
    by_rule = select(hold_rule.c.name).select_from(hold.outerjoin(hold_rule))

    assert {(row["type"], row["early"]) for row in found.transactions} - AFTER_WEEKS == {
        ("PENDING_EARNING", False),
        ("EARNING", False),
        ("EARNING", True),
        ("EARNING_PART", True),
        ("REFUND", False),
        ("DEPOSIT", False),
        ("WITHDRAWAL", False),
        ("CLAWBACK", False),
        ("PAYOUT", False),
        ("PAYOUT_CANCELLED", False),
        ("PAYOUT_PAID", False),
        ("PAYOUT_RETURNED", False),
    }
    assert {row["currency"] for row in found.transactions if row["type"] == "EARNING"} == {"PHP", "JPY"}
    assert {1, 2, 3, 4} <= set(teams.values())
    assert set(story.scalars(select(hold.c.kind))) == set(ShareKind)
    assert set(story.scalars(by_rule)) == {None, "marketplace", "trusted", "new-seller"}
    assert "admin-1" in early_by
    assert any(source.startswith("client-") for source in early_by)
    assert set(found.backjobs) == {"OPEN", "REJECTED", "APPROVED", "WITHDRAWN"}
    assert 0 < played.simulation.counts.refunded_in_part < found.backjobs["APPROVED"]
    assert max(rejected) == 3
    assert closed == {"BACKJOB", "ADMIN", "RISK"}
    assert story.scalars(admins).all() != []
    assert set(covered) == set(late) != set()
    assert played.simulation.counts.repeated > 0
    in_life = {refusal.__name__ for refusal in REFUSED_IN_LIFE}
    assert in_life - REFUSED_AFTER_WEEKS <= set(played.simulation.counts.refused) <= in_life


def test_weeks_later_payments_are_disputed(engine: Engine) -> None:
    """After 30 and 60 days: what was spent is a debt, which is advanced, paid or forgiven."""
    done = simulate(engine, start=START, days=75, seed=SEED)

    with engine.connect() as connection:
        types = {row["type"] for row in totals(connection).transactions}
        taken_from = connection.scalars(
            text(
                "SELECT DISTINCT date_trunc('day', batch.recorded_at - hold.held_at) FROM buffer.batch"
                " JOIN buffer.hold ON hold.hold_id = batch.named_hold_id WHERE batch.kind = 'CLAWBACK'"
            )
        ).all()
        creditors = connection.execute(
            text(
                "SELECT count(*) FILTER (WHERE creditor_wallet_id IS NULL), count(creditor_wallet_id)"
                " FROM buffer.debt"
            )
        ).one()
        states = set(connection.scalars(text("SELECT DISTINCT state FROM buffer.payout")))
        lowest = connection.scalar(text("SELECT min(balance_minor) FROM buffer.wallet"))
    assert done.violations == []
    assert {type_ for type_, _ in AFTER_WEEKS} | {"CLAWBACK", "RECOVERY", "PAYOUT_RETURNED"} <= types
    assert {timedelta(days=30), timedelta(days=60)} <= set(taken_from)
    assert min(creditors) > 0
    assert states >= {"PAID", "RETURNED", "CANCELLED"}
    assert done.counts.refused.keys() >= {"DebtRefused", "PayoutRefused"}
    assert lowest == 0


def test_an_outage_is_caught_up_by_one_run(played: Played, story: Connection) -> None:
    """No batch in its hours, and then one run with everything that became due in them."""
    down = outages(SEED, hours=DAYS * 24)
    runs = {
        row.recorded_at: row.hours
        for row in story.execute(
            select(
                batch.c.recorded_at,
                func.count(func.date_trunc("hour", transaction.c.release_date).distinct()).label("hours"),
            )
            .join(transaction, transaction.c.batch_id == batch.c.batch_id)
            .where(batch.c.kind == "DUE")
            .group_by(batch.c.recorded_at)
        )
    }

    assert len(down) == played.simulation.outages >= 1
    assert sum(map(len, down)) == played.simulation.hours_missed
    for outage in down:
        # The run of an hour is at its end.
        assert not any(START + (number + 1) * HOUR in runs for number in outage)
    caught_up = [runs.get(START + (outage.stop + 1) * HOUR, 0) for outage in down]
    assert max(caught_up) > 1


def test_nobody_is_notified(story: Connection) -> None:
    """The notifications exist and count as dispatched, without a delivery."""
    notifications, dispatched = story.execute(
        select(func.count(), func.count(notification.c.dispatched_at))
    ).one()
    deliveries = story.execute(select(func.count()).select_from(delivery)).scalar_one()

    assert notifications == dispatched > 1000
    assert deliveries == 0


def test_outages_last_for_hours_to_days_and_are_over_before_the_end() -> None:
    """In any year: separate, and 3 to 48 hours long."""
    years = [outages(seed, hours=8760) for seed in range(50)]

    for year in years:
        assert all(OUTAGE_HOURS_MIN <= len(outage) <= OUTAGE_HOURS_MAX for outage in year)
        assert all(first.stop < second.start for first, second in pairwise(year))
        assert year[-1].stop < 8760
    assert len({str(year) for year in years}) == 50
    assert {len(outage) for year in years for outage in year} == set(range(3, 49))


# ---- repetition


def test_the_same_seed_writes_the_same_books(played: Played, database_url: str) -> None:
    """Another process, with another hash seed, writes the same rows into every table."""
    # A hash seed that differs from this process's own.
    environment = {**os.environ, "BUFFER_DATABASE_URL": database_url, "PYTHONHASHSEED": "1"}
    command = [sys.executable, "-c", "from buffer_pipeline.cli.app import main; main()", "simulate"]
    options = ["--days", str(DAYS), "--seed", str(SEED), "--start", START.isoformat()]

    subprocess.run([*command, *options], env=environment, check=True, capture_output=True)

    engine = make_engine(database_url)
    again = rows_by_table(engine)
    engine.dispose()
    assert len(again["transaction"]) > 1000
    assert again == rows_by_table(played.engine)


def test_another_seed_writes_other_books(played: Played, engine: Engine) -> None:
    """The seed determines the events."""
    simulate(engine, start=START, days=2, seed=SEED + 1)

    amounts = select(hold.c.amount_minor).order_by(hold.c.hold_id).limit(20)
    with engine.connect() as connection, played.engine.connect() as story:
        assert connection.scalars(amounts).all() != story.scalars(amounts).all()


# ---- what ends it


@pytest.mark.parametrize("what", ["hold", "wallet", "contact"])
def test_books_that_hold_anything_are_refused(engine: Engine, what: str) -> None:
    """The message names the tables, and nothing is written."""
    with engine.begin() as connection:
        if what == "hold":
            place_hold(connection)
        elif what == "wallet":
            deposit(connection, owner="client-3", amount="1.00", currency="PHP", reference="a", now=NOON)
        else:
            set_contact(connection, owner="client-3", locale="en_PH", now=NOON)
        before = books(connection)

    with pytest.raises(Refused, match=rf"^books: not empty \(.*{what}.*\); a simulation needs books of its"):
        simulate(engine, start=START, days=1, seed=SEED)

    with engine.connect() as connection:
        assert books(connection) == before


@pytest.mark.parametrize(
    ("start", "days", "message"),
    [
        (START.replace(minute=1), 1, "must be a full hour"),
        (START.replace(tzinfo=None), 1, "no time zone"),
        (START, 0, "days 0: must be at least 1"),
    ],
)
def test_invalid_simulation_is_refused(engine: Engine, start: datetime, days: int, message: str) -> None:
    """Before anything is written."""
    with pytest.raises(InvalidInput, match=message):
        simulate(engine, start=start, days=days, seed=SEED)

    with engine.connect() as connection:
        assert not any(books(connection).values())


def test_the_first_violation_ends_it(engine: Engine, superuser_url: str) -> None:
    """A wallet with a cent too much is found on the same day, with its row."""
    superuser = make_engine(superuser_url)
    with superuser.begin() as connection:
        connection.execute(
            text(
                "CREATE FUNCTION public.a_cent_too_much() RETURNS trigger LANGUAGE plpgsql AS"
                " $$ BEGIN NEW.pending_earnings_minor := NEW.pending_earnings_minor + 1; RETURN NEW; END $$"
            )
        )
        connection.execute(
            text(
                "CREATE TRIGGER a_cent_too_much BEFORE UPDATE ON buffer.wallet FOR EACH ROW"
                " WHEN (NEW.pending_earnings_minor > 2000000 AND NEW.owner = 'worker-1')"
                " EXECUTE FUNCTION public.a_cent_too_much()"
            )
        )
    superuser.dispose()

    done = simulate(engine, start=START, days=DAYS, seed=SEED)

    assert "pending_equals_unsettled_holds" in {violation.invariant for violation in done.violations}
    assert all(violation.rows for violation in done.violations)
    assert done.ticks == 24 * done.checks < 24 * DAYS


def test_a_run_that_leaves_something_due_after_an_outage_ends_it(engine: Engine) -> None:
    """A due hold stays locked. The run that should catch up skips it, and the simulation ends."""
    # The first one is over before the first hold is due.
    outage = outages(SEED, hours=DAYS * 24)[1]
    ticks = 0
    locker = engine.connect()

    def keep_a_hold_locked() -> None:
        nonlocal ticks
        ticks += 1
        if ticks == outage.stop:
            due = unsettled_hold.c.release_date <= START + ticks * HOUR
            free = unsettled_hold.c.state == "BUFFERED"
            locker.execute(select(unsettled_hold).where(due, free).limit(1).with_for_update()).one()

    done = simulate(engine, start=START, days=DAYS, seed=SEED, after_tick=keep_a_hold_locked)
    locker.close()

    assert [violation.invariant for violation in done.violations] == ["one_run_catches_up"]
    assert len(done.violations[0].rows) == 1
    assert done.ticks == outage.stop + 1


def test_interrupted_simulation_keeps_its_hours(engine: Engine) -> None:
    """After Ctrl-C, the books have the hours up to then and are sound."""
    ticks = 0

    def press_ctrl_c() -> None:
        nonlocal ticks
        ticks += 1
        if ticks == 15:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        simulate(engine, start=START, days=DAYS, seed=SEED, after_tick=press_ctrl_c)

    with engine.connect() as connection:
        latest = connection.execute(select(func.max(hold.c.held_at))).scalar_one()
        violations = reconcile(connection)
    assert START + 14 * HOUR < latest < START + 15 * HOUR
    assert violations == []


def test_unexpected_refusal_is_raised(connection: Connection) -> None:
    """A reference that identifies something else is a fault of the marketplace, not a refused request."""
    market = Marketplace(start=START, seed=SEED)
    deposit(
        connection, owner="client-1", amount="1.00", currency="PHP", reference="deposit-1-1-PHP", now=START
    )

    with pytest.raises(ReferenceConflict):
        market.play_hour(connection, hour=START)
