"""Advancing the clock of a sandbox: what happens at which hour, and what interrupts it."""

from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest
from sqlalchemy import Engine, event, select, text

from buffer_pipeline.audit.reconcile import reconcile
from buffer_pipeline.database import fetch, make_engine
from buffer_pipeline.embedded import EmbeddedServer
from buffer_pipeline.errors import ClockRefused, InvalidInput
from buffer_pipeline.hold import HoldState
from buffer_pipeline.hours import HOUR
from buffer_pipeline.notifications.channels.channel import make_endpoint
from buffer_pipeline.payouts import PayoutSchedule, set_payout_schedule
from buffer_pipeline.sandbox.advance import advance
from buffer_pipeline.sandbox.clock import parse_duration
from buffer_pipeline.settings import EndpointSetting
from buffer_pipeline.tables import batch, delivery, inbox_message, notification, payout, payout_batch
from buffer_pipeline.tables import transaction as line
from buffer_pipeline_tests.support.builders import ADMIN, end_state, place_hold, state_of, wallet_of
from buffer_pipeline_tests.support.databases import Books, fresh_books
from buffer_pipeline_tests.support.hostile import digest
from buffer_pipeline_tests.support.payouts import to_iban
from buffer_pipeline_tests.support.sandboxes import NEW_YEAR, clock_of, sandbox_of, started

DAY: Final = timedelta(days=1)
INBOX: Final = make_endpoint(EndpointSetting(name="inbox", channel="inbox"))


@pytest.fixture
def sandbox(engine: Engine) -> Engine:
    """A sandbox at the beginning of a year."""
    return started(engine)


def held(engine: Engine, *, after: timedelta = 7 * DAY, **changes: Any) -> int:
    """Hold an earning now, for a time."""
    with engine.begin() as connection:
        return place_hold(connection, held_at=NEW_YEAR, release_date=NEW_YEAR + after, **changes)


def test_hold_of_seven_days_is_released_at_the_next_full_hour(sandbox: Engine) -> None:
    """Not a minute before that, and by its time."""
    hold_id = held(sandbox)
    full_hour = NEW_YEAR + 7 * DAY + HOUR / 2

    before = advance(sandbox_of(sandbox), to=full_hour - timedelta(minutes=1))
    with sandbox.connect() as connection:
        waiting = state_of(connection, hold_id)
    then = advance(sandbox_of(sandbox), duration=timedelta(minutes=1))

    assert (before.holds_released, waiting) == (0, HoldState.BUFFERED)
    assert (then.holds_released, then.now, then.released_minor) == (1, full_hour, {"PHP": 100_000})
    with sandbox.connect() as connection:
        assert state_of(connection, hold_id) is HoldState.RELEASED
        times = connection.scalars(select(line.c.recorded_at).order_by(line.c.transaction_id)).all()
        assert times == [NEW_YEAR, full_hour]


def test_hours_pass_in_order(sandbox: Engine) -> None:
    """Each hold is released by the run of its own hour, whatever the order in which they came."""
    for hours in (30, 2, 49, 3):
        held(sandbox, after=hours * HOUR, amount=f"{hours}.00", job=f"job-{hours}")

    done = advance(sandbox_of(sandbox), duration=3 * DAY)

    assert (done.hours, done.holds_released) == (72, 4)
    with sandbox.connect() as connection:
        rows = connection.execute(
            select(line.c.amount_minor, line.c.recorded_at, batch.c.due_by)
            .join(batch, batch.c.batch_id == line.c.batch_id)
            .order_by(line.c.transaction_id)
        ).all()
    assert [row.amount_minor for row in rows] == [200, 300, 3000, 4900]
    assert [row.due_by for row in rows] == [NEW_YEAR + (hours + 0.5) * HOUR for hours in (2, 3, 30, 49)]
    assert all(row.recorded_at == row.due_by for row in rows)


def test_messages_are_sent_at_the_times_of_the_sandbox(sandbox: Engine) -> None:
    """What waits goes out before the clock moves, and a release's message in its hour."""
    held(sandbox, after=2 * HOUR)

    done = advance(sandbox_of(sandbox, endpoints=[INBOX]), duration=DAY)

    released_at = NEW_YEAR + 2.5 * HOUR
    with sandbox.connect() as connection:
        messages = connection.execute(
            select(inbox_message.c.type, inbox_message.c.created_at).order_by(inbox_message.c.notification_id)
        ).all()
        settled = connection.scalars(select(delivery.c.settled_at).order_by(delivery.c.delivery_id)).all()
        written = connection.scalars(
            select(notification.c.created_at).order_by(notification.c.notification_id)
        ).all()
    assert done.sent == 2
    assert [row.type for row in messages] == ["PAYMENT_PENDING", "PAYMENT_RELEASED"]
    assert settled == written == [NEW_YEAR, released_at]


def test_payouts_by_schedule_are_made_at_six(engine: Engine) -> None:
    """Each day, if the sandbox was started with them; a balance of the hour before is paid out."""
    started(engine, daily_payouts=True)
    held(engine, after=5 * HOUR, amount="500.00")
    held(engine, after=29 * HOUR, amount="700.00", job="job-9")
    with engine.begin() as connection:
        to_iban(connection, now=NEW_YEAR)
        set_payout_schedule(
            connection,
            owner="worker-17",
            schedule=PayoutSchedule.DAILY,
            by=ADMIN,
            reason="asked",
            now=NEW_YEAR,
        )

    done = advance(sandbox_of(engine), duration=2 * DAY)

    assert (done.payouts, done.payout_batches) == (2, 2)
    with engine.connect() as connection:
        asked = connection.execute(
            select(payout.c.amount_minor, payout.c.requested_at).order_by(payout.c.payout_id)
        ).all()
        made = connection.scalars(select(payout_batch.c.made_at).order_by(payout_batch.c.made_at)).all()
        assert reconcile(connection) == []
    six = [datetime(2026, 1, day, 6, tzinfo=UTC) for day in (1, 2)]
    assert [tuple(row) for row in asked] == [(50_000, six[0]), (70_000, six[1])]
    assert made == six


def test_sandbox_without_daily_payouts_makes_none(sandbox: Engine) -> None:
    """As in Dagster, where the schedule is off at first."""
    held(sandbox, after=HOUR)
    with sandbox.begin() as connection:
        to_iban(connection, now=NEW_YEAR)
        set_payout_schedule(
            connection,
            owner="worker-17",
            schedule=PayoutSchedule.DAILY,
            by=ADMIN,
            reason="asked",
            now=NEW_YEAR,
        )

    done = advance(sandbox_of(sandbox), duration=DAY)

    assert (done.holds_released, done.payouts, done.payout_batches) == (1, 0, 0)


def test_logins_of_roles_can_advance(roles: Books) -> None:
    """A releaser does, and for payouts a login that may pay out."""
    started(roles.owner, daily_payouts=True)
    with roles.platform.begin() as connection:
        place_hold(connection, held_at=NEW_YEAR)

    with pytest.raises(ClockRefused, match="may not pay out"):
        advance(sandbox_of(roles.releaser), duration=DAY)
    done = advance(sandbox_of(roles.releaser, payouts=roles.payouts, endpoints=[INBOX]), duration=8 * DAY)

    assert (done.holds_released, done.sent) == (1, 2)


class Killed(Exception):
    """The process has ended here."""


def killed_at(engine: Engine, number: int, *, to: datetime) -> bool:
    """Advance until a statement that is not sent any more; return False if it came to its end before."""
    sent = 0

    def count(*_: Any) -> None:
        nonlocal sent
        sent += 1
        if sent >= number:
            raise Killed

    event.listen(engine, "before_cursor_execute", count)
    try:
        advance(sandbox_of(engine, endpoints=[INBOX]), to=to)
    except Killed:
        return True
    finally:
        event.remove(engine, "before_cursor_execute", count)
    return False


def test_killed_at_any_statement_it_goes_on(sandbox: Engine) -> None:
    """Each time a statement later. Then the books are those of an advance that nothing has cut short."""
    for hours in (1, 2):
        held(sandbox, after=hours * HOUR, job=f"job-{hours}")
    end = NEW_YEAR + 3 * HOUR

    number = 1
    while killed_at(sandbox, number, to=end):
        number += 1

    assert number > 20
    assert clock_of(sandbox).now == end
    with sandbox.connect() as connection:
        assert wallet_of(connection, "worker-17").balance_minor == 200_000
        times = connection.scalars(
            select(line.c.recorded_at).where(line.c.type == "EARNING").order_by(line.c.transaction_id)
        ).all()
        assert times == [NEW_YEAR + 1.5 * HOUR, NEW_YEAR + 2.5 * HOUR]
        assert len(connection.execute(select(inbox_message.c.notification_id)).all()) >= 2
        assert reconcile(connection) == []


def test_same_duration_again_ends_at_the_same_time(sandbox: Engine) -> None:
    """It counts from where the advance began that was cut short; one without a duration goes on too."""
    stopped = 3

    def stop() -> bool:
        return clock_of(sandbox).worked_until >= NEW_YEAR.replace(minute=0) + stopped * HOUR

    first = advance(sandbox_of(sandbox, stop=stop), duration=DAY)
    stopped = 6
    second = advance(sandbox_of(sandbox, stop=stop))
    between = clock_of(sandbox)
    third = advance(sandbox_of(sandbox), duration=DAY)

    assert (first.interrupted, second.interrupted, third.interrupted) == (True, True, False)
    assert (between.advance_from, between.advance_to) == (NEW_YEAR, NEW_YEAR + DAY)
    assert NEW_YEAR < between.now < NEW_YEAR + DAY
    assert third.now == clock_of(sandbox).now == NEW_YEAR + DAY
    assert clock_of(sandbox).advance_to is None


def test_interrupted_and_whole_advances_make_the_same_books(sandbox: Engine, server: EmbeddedServer) -> None:
    """An advance in steps of odd lengths does the same as one of their sum."""
    with fresh_books(server) as url:
        other = started(make_engine(url))
        for books in (sandbox, other):
            for hours in (1, 5, 20):
                held(books, after=hours * HOUR, job=f"job-{hours}", reference=f"of-{hours}")
        for minutes in (7, 53, 200, 1180):
            advance(sandbox_of(sandbox), duration=timedelta(minutes=minutes))
        advance(sandbox_of(other), duration=DAY)

        with sandbox.connect() as stepped, other.connect() as whole:
            assert end_state(stepped) == end_state(whole)
        assert clock_of(sandbox) == clock_of(other)
        other.dispose()


def test_second_advance_is_refused_while_one_is_running(sandbox: Engine) -> None:
    """It does not wait, and changes nothing."""
    refused = []

    def another() -> None:
        with pytest.raises(ClockRefused, match="another advance is running") as found:
            advance(sandbox_of(sandbox), duration=7 * DAY)
        refused.append(str(found.value))

    done = advance(sandbox_of(sandbox, after_hour=another), duration=2 * HOUR)

    assert len(refused) == 2
    assert done.now == NEW_YEAR + 2 * HOUR


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"to": NEW_YEAR - timedelta(seconds=1)}, "never goes back"),
        ({"to": NEW_YEAR + timedelta(days=367)}, "more than a year"),
        ({"duration": timedelta(days=367)}, "more than a year"),
        ({"duration": timedelta(days=999_999)}, "to|too long"),
        ({"to": NEW_YEAR.replace(month=2, tzinfo=None)}, "no time zone"),
        ({}, "no advance is unfinished"),
        ({"duration": DAY, "to": NEW_YEAR + DAY}, "not both"),
    ],
)
def test_wrong_requests_change_nothing(sandbox: Engine, asked: dict[str, Any], said: str) -> None:
    """Each is refused by name."""
    before = digest(sandbox)

    with pytest.raises(InvalidInput, match=said):
        advance(sandbox_of(sandbox), **asked)

    assert digest(sandbox) == before


def test_real_books_are_refused(engine: Engine) -> None:
    """Nothing is released in them, and nothing written."""
    with engine.begin() as connection:
        place_hold(connection)
    before = digest(engine)

    with pytest.raises(ClockRefused, match=r"^books: no sandbox"):
        advance(sandbox_of(engine), duration=DAY)

    assert digest(engine) == before


@pytest.mark.parametrize("wrong", ["", "7", "d", "0d", "-1d", "7 d", "1w", "7d12h", "1e3h", "9999999d", "٧d"])
def test_wrong_durations_are_refused(wrong: str) -> None:
    """Only a number of days, hours or minutes is one."""
    with pytest.raises(InvalidInput, match=r"^duration "):
        parse_duration(wrong)


def test_durations() -> None:
    """Days, hours and minutes."""
    assert [parse_duration(each) for each in ("7d", "12h", "90m")] == [
        timedelta(days=7),
        timedelta(hours=12),
        timedelta(minutes=90),
    ]


def test_lock_of_an_advance_ends_with_its_session(sandbox: Engine) -> None:
    """A killed process leaves none behind."""
    with sandbox.connect() as holder:
        assert fetch(holder, "sandbox/try_lock")[0]["is_mine"]
        pid = holder.scalar(text("SELECT pg_backend_pid()"))
        with pytest.raises(ClockRefused, match="another advance"):
            advance(sandbox_of(sandbox), duration=HOUR)
        holder.invalidate()

    with sandbox.connect() as connection:
        connection.execute(text("SELECT pg_terminate_backend(:pid, 10000)"), {"pid": pid})
    assert advance(sandbox_of(sandbox), duration=HOUR).now == NEW_YEAR + HOUR
