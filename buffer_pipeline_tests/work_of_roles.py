"""All the work there is, each by the role whose work it is; and books with an engine for each role."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from sqlalchemy import Engine, text

from buffer_pipeline import doctor, reports
from buffer_pipeline.alerts import AlertKind, day_of, is_told, record_told, untold_stuck_payments
from buffer_pipeline.backjob import approve_backjob, reject_backjob, request_backjob, withdraw_backjob
from buffer_pipeline.contact import change_contact, find_contacts, set_contact
from buffer_pipeline.counts import (
    count_hours,
    counts_between,
    differing_counts,
    first_hour,
    require_complete,
    uncounted_hours,
)
from buffer_pipeline.daily_report import daily_report
from buffer_pipeline.database import (
    confirm,
    database_clock,
    fetch,
    one_moment,
)
from buffer_pipeline.drain import drain_matured
from buffer_pipeline.errors import Refused, WalletFull
from buffer_pipeline.freeze import freeze_hold, unfreeze_hold
from buffer_pipeline.history import seal, verify
from buffer_pipeline.hold import FreezeKind, HoldState
from buffer_pipeline.hours import clock_of_a_writer, hour_of
from buffer_pipeline.inbox import (
    InboxMessage,
    add_to_inbox,
    count_unread,
    list_inbox,
    mark_all_read,
    mark_read,
)
from buffer_pipeline.intake import Earning, add_many_pending_earnings, add_pending_earnings
from buffer_pipeline.legacy import import_legacy
from buffer_pipeline.metrics import BooksCollector
from buffer_pipeline.money import AMOUNT_MINOR_MAX, format_amount
from buffer_pipeline.outbox import (
    Outcome,
    Route,
    Settlement,
    claim,
    delivery_figures,
    dispatch,
    find_pauses,
    list_deliveries,
    list_undispatched,
    pause,
    replay,
    resume,
    settle,
    to_send,
)
from buffer_pipeline.policy import Policy
from buffer_pipeline.reconcile import reconcile, reconcile_run
from buffer_pipeline.refund import refund_hold
from buffer_pipeline.release import release_early, release_matured
from buffer_pipeline.wallet import deposit, withdraw
from buffer_pipeline_tests.builders import ADMIN, DAY_7, PAYEE, PAYER, place_hold, state_of
from buffer_pipeline_tests.conftest import NOON, Books

EXPORT: Final = Path(__file__).parent / "legacy_export"

HOUR: Final = timedelta(hours=1)


def earnings_come_in(platform: Engine) -> None:
    """Hold earnings: one, several, again, and an export."""
    with platform.begin() as connection:
        for state in HoldState:
            place_hold(connection, state=state, job=f"job-{state}")
        for _ in ("first", "again"):
            add_many_pending_earnings(
                connection,
                [
                    Earning(
                        reference=f"team-{payee}",
                        job="job-team",
                        payee=payee,
                        payer=PAYER,
                        amount="10.00",
                        currency="PHP",
                    )
                    for payee in ("worker-1", "worker-2")
                ],
                now=NOON,
            )
            add_pending_earnings(
                connection,
                reference="alone",
                job="job-alone",
                payee="worker-new",
                payer="client-new",
                amount="10.00",
                currency="PHP",
                now=NOON,
            )
        release_early(connection, job="job-alone", by="client-new", reason="well done", now=NOON)
        too_much = Earning(
            reference="",
            job="job-rich",
            payee="worker-1",
            payer=PAYER,
            amount=format_amount(AMOUNT_MINOR_MAX, 2),
            currency="PHP",
        )
        with connection.begin_nested() as savepoint:
            riches = [replace(too_much, reference=f"rich-{number}") for number in range(9_224)]
            assert isinstance(add_many_pending_earnings(connection, riches, now=NOON)[-1], WalletFull)
            savepoint.rollback()
    with platform.begin() as connection:
        import_legacy(connection, EXPORT, now=clock_of_a_writer(connection))


def backjobs_are_decided(platform: Engine) -> None:
    """Ask for backjobs and decide them in each way; freeze beside them."""
    with platform.begin() as connection:
        for decide in (reject_backjob, withdraw_backjob, approve_backjob):
            hold_id = place_hold(connection, job=decide.__name__)
            risk = freeze_hold(
                connection, hold_id=hold_id, kind=FreezeKind.RISK, by="risk-2", reason="a look", now=NOON
            )
            request = request_backjob(connection, job=decide.__name__, by=PAYER, reason="hm", now=NOON)
            by = PAYER if decide is withdraw_backjob else ADMIN
            if decide is approve_backjob:
                with pytest.raises(Refused), connection.begin_nested():
                    decide(connection, backjob_id=request.backjob_id, by=by, reason="so be it", now=NOON)
            unfreeze_hold(connection, freeze_id=risk.freeze_id, by="risk-2", reason="cleared", now=NOON)
            decide(connection, backjob_id=request.backjob_id, by=by, reason="so be it", now=NOON)
            with pytest.raises(Refused), connection.begin_nested():
                unfreeze_hold(connection, freeze_id=risk.freeze_id, by="risk-2", reason="again", now=NOON)


def admins_refund(platform: Engine) -> None:
    """Refund a frozen hold, twice; and hold an earning for a job with an open backjob."""
    with platform.begin() as connection:
        hold_id = place_hold(connection, state=HoldState.FROZEN, job="job-refund")
        for _ in ("first", "again"):
            refund_hold(
                connection, hold_id=hold_id, by=ADMIN, reason="a thief", reference="refund-1", now=NOON
            )
        place_hold(connection, job="job-late")
        for _ in ("first", "again"):
            request_backjob(
                connection, job="job-late", by=PAYER, reason="hm", reference="request-1", now=NOON
            )
        late = place_hold(connection, job="job-late")
        assert state_of(connection, late) is HoldState.FROZEN


def money_moves(platform: Engine) -> None:
    """Deposit and withdraw, each twice."""
    with platform.begin() as connection:
        for _ in ("first", "again"):
            deposit(connection, owner=PAYER, amount="9.00", currency="PHP", reference="in-1", now=NOON)
            withdraw(connection, owner=PAYER, amount="4.00", currency="PHP", reference="out-1", now=NOON)


def owners_are_known(platform: Engine) -> None:
    """Keep contacts."""
    with platform.begin() as connection:
        set_contact(connection, owner=PAYEE, locale="en_PH", email="worker-17@example.com", now=NOON)
        change_contact(connection, owner=PAYEE, changes={"time_zone": "Asia/Manila"}, now=NOON)
        assert find_contacts(connection, [PAYEE])[PAYEE].time_zone == "Asia/Manila"


def owners_read_their_inbox(platform: Engine) -> None:
    """List an inbox and mark it as read."""
    with platform.begin() as connection:
        assert count_unread(connection, owner=PAYEE) == 2
        newest, oldest = list_inbox(connection, owner=PAYEE)
        assert list_inbox(connection, owner=PAYEE, unread=True) == [newest, oldest]
        assert mark_read(connection, owner=PAYEE, notification_ids=[oldest.notification_id], now=NOON) == 1
        assert mark_all_read(connection, owner=PAYEE, up_to=newest.notification_id, now=NOON) == 1


def what_is_due_is_released(releaser: Engine) -> None:
    """Release as the schedule does, with one worker and with two, and prove it."""
    with releaser.begin() as connection:
        assert release_matured(connection, now=DAY_7, batch_limit=1).holds_released == 1
    now = database_clock_of(releaser)
    with releaser.connect() as connection:
        assert release_matured(connection, now=now, batch_limit=1).holds_released == 1
        # Ids that nothing has.
        connection.rollback()
    since = hour_of(now)
    for workers, due_by in ((1, DAY_7), (2, now)):
        run = drain_matured(releaser, due_by=due_by, source="run-1", workers=workers)
        assert run.holds_released > 0
    with releaser.begin() as connection:
        assert reconcile_run(connection, source="run-1", since=since) == []
        reports.due_holds(connection, due_by=DAY_7)
        reports.released_from(connection, source="run-1", since=since)


def history_is_sealed(releaser: Engine) -> None:
    """Seal what has been written."""
    assert seal(releaser).lines > 0


def owners_are_told(releaser: Engine) -> None:
    """Dispatch, claim, settle, pause, replay, and add to an inbox."""
    with releaser.begin() as connection:
        assert list_undispatched(connection) != []
        while dispatch(connection, [route("app"), route("mail")], batch_limit=1000, now=DAY_7).notifications:
            pass
        assert to_send(connection, endpoints=["app"], now=DAY_7).due
        claimed = claim(
            connection, endpoint="app", owners_limit=9, per_owner_limit=2, lease_seconds=60, now=DAY_7
        )
        of_payee = [each for each in claimed if each.notification.owner == PAYEE]
        assert len(of_payee) == 2
        assert add_to_inbox(connection, [message(each.notification) for each in of_payee]) == 2
        assert add_to_inbox(connection, [message(each.notification) for each in of_payee]) == 0
        first, *others = claimed
        outcomes = [Settlement(claimed=first, outcome=Outcome.DEAD, reason="gone")]
        outcomes += [Settlement(claimed=each, outcome=Outcome.DELIVERED) for each in others[:2]]
        outcomes += [Settlement(claimed=each, outcome=Outcome.UNSENT) for each in others[2:]]
        assert len(settle(connection, outcomes, now=DAY_7)) == len(claimed)
        assert replay(connection, now=DAY_7, batch_limit=9) == [first.delivery_id]
        for _ in ("first", "longer"):
            pause(connection, "app", open_until=DAY_7 + HOUR, reason="no answer")
        assert len(find_pauses(connection, ["app"])) == 1
        resume(connection, "app")
        assert list_deliveries(connection) != []
        assert delivery_figures(connection) != []
        find_contacts(connection, [PAYEE])


def hours_are_counted(releaser: Engine) -> None:
    """Count hours, twice, and prove the counts."""
    with releaser.connect() as connection:
        end = hour_of(database_clock(connection))
    for _ in ("first", "again"):
        count_hours(releaser, start=end - 2 * HOUR, end=end, counted_by="run-1")
    count_hours(releaser, start=NOON, end=NOON + 2 * HOUR, counted_by="run-1")
    with releaser.connect() as connection:
        assert differing_counts(connection, start=NOON, end=NOON + 2 * HOUR) == []


def operators_are_told(releaser: Engine) -> None:
    """Look for what is stuck and remember who was told."""
    with releaser.begin() as connection:
        later = NOON + timedelta(days=30)
        stuck = untold_stuck_payments(
            connection, now=later, older_than=timedelta(hours=72), period=day_of(later), shown=5
        )
        assert stuck.holds > 0
        record_told(
            connection,
            kind=AlertKind.STUCK_PAYMENT,
            period=day_of(later),
            now=later,
            hold_ids=stuck.hold_ids,
        )
        assert is_told(connection, kind=AlertKind.STUCK_PAYMENT, period=day_of(later))


def books_are_read(engine: Engine) -> None:
    """Report, list and prove: what a reader does, and whoever else looks."""
    with one_moment(engine) as connection:
        now = database_clock(connection)
        assert reconcile(connection) == []
        found = verify(connection)
        assert (found.offence, found.unsealed, found.lines > 0) == (None, 0, True)
        daily_report(connection, day=NOON.date(), days=2)
        counts_between(connection, start=NOON, end=NOON + 3 * HOUR)
        uncounted_hours(connection, start=NOON, end=NOON + 3 * HOUR)
        assert differing_counts(connection, start=NOON, end=NOON + 3 * HOUR) == []
        assert first_hour(connection) is not None
        require_complete(connection, end=now)
        held = reports.list_holds(connection, limit=9)
        reports.show_hold(connection, hold_id=held[0]["hold_id"])
        confirm(connection)
        assert reports.list_wallets(connection, owner=PAYEE) != []
        assert reports.wallet_statement(connection, owner=PAYEE) != []
        assert reports.list_backjobs(connection) != []
        assert reports.currencies(connection) != []
        reports.holds_of_batch(connection, batch_id=1)
        reports.count_stuck(connection, now=now, older_than=HOUR)
        reports.stuck_holds(connection, now=now, older_than=HOUR)
        assert connection.execute(text("SELECT version_num FROM buffer.alembic_version")).scalar_one()


def all_is_looked_at(engine: Engine) -> None:
    """Make each check of `doctor` that asks the books."""
    for check in (
        doctor.database,
        doctor.migration,
        doctor.roles,
        doctor.overdue,
        doctor.frozen,
        doctor.outbox,
        doctor.books,
    ):
        check(engine)
    assert doctor.small_books(engine)
    assert doctor.clock(engine, read=lambda: datetime.now(UTC))[0]
    assert doctor.remote_disk(engine)[0]


def figures_are_served(role: Engine) -> None:
    """Serve what Prometheus asks for."""
    figures = BooksCollector(role, policy=Policy(), endpoints=[]).collect()
    assert next(figures).samples[0].value == 1
    # Left out there, as these books are counted by nobody.
    with role.connect() as connection:
        fetch(connection, "metrics/moved", hours=[NOON])


# In the order in which each finds what it needs.
WORK: Final[list[tuple[str, Callable[[Engine], None]]]] = [
    ("platform", earnings_come_in),
    ("platform", backjobs_are_decided),
    ("platform", admins_refund),
    ("platform", money_moves),
    ("platform", owners_are_known),
    ("releaser", what_is_due_is_released),
    ("releaser", history_is_sealed),
    ("releaser", owners_are_told),
    ("releaser", hours_are_counted),
    ("releaser", operators_are_told),
    ("releaser", books_are_read),
    ("releaser", all_is_looked_at),
    ("releaser", figures_are_served),
    ("reader", books_are_read),
    ("reader", figures_are_served),
]


def database_clock_of(engine: Engine) -> Any:
    """Return the database's clock."""
    with engine.connect() as connection:
        return database_clock(connection)


def route(name: str) -> Route:
    """Return an endpoint that takes everything."""
    return Route(name=name, types=None, needs_address=name == "mail")


def message(notification: Any) -> InboxMessage:
    """Return what the inbox shows of a notification."""
    return InboxMessage(
        notification_id=notification.notification_id,
        owner=notification.owner,
        type=notification.type,
        title="t",
        body="b",
        hold_id=notification.hold_id,
        backjob_id=notification.backjob_id,
        created_at=notification.created_at,
    )


def do_all(books: Books) -> None:
    """Do everything that there is to do, each by its role."""
    for role, work in WORK:
        work(books.of(role))
    owners_read_their_inbox(books.platform)
