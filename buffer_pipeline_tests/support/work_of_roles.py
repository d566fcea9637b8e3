"""All work, each part by the role that needs it, and books with an engine for each role."""

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final

from sqlalchemy import Connection, Engine, text

from buffer_pipeline.audit.reconcile import reconcile, reconcile_run
from buffer_pipeline.audit.seals import seal, verify
from buffer_pipeline.database import confirm, database_clock, fetch, snapshot
from buffer_pipeline.explain import explain_hold
from buffer_pipeline.hours import hour_of
from buffer_pipeline.monitoring import doctor, payout_doctor
from buffer_pipeline.monitoring.metrics import BooksCollector
from buffer_pipeline.monitoring.sent_alerts import (
    AlertKind,
    day_of,
    is_alert_sent,
    record_sent_alert,
    reported_payout_batches,
    reported_payouts,
    unreported_stuck_payments,
)
from buffer_pipeline.notifications.contact import find_contacts
from buffer_pipeline.notifications.inbox import (
    InboxMessage,
    add_to_inbox,
)
from buffer_pipeline.notifications.outbox import (
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
from buffer_pipeline.policy import PayoutPolicy, Policy
from buffer_pipeline.reads import Hold, Page, every_item, find_hold, find_wallet, list_holds, list_wallets
from buffer_pipeline.release import release_matured
from buffer_pipeline.release_run.run import release_all_due
from buffer_pipeline.reports.audit_trail import audit_trail
from buffer_pipeline.reports.complete_hours import (
    differing_counts,
    first_hour,
    require_complete,
    uncounted_hours,
)
from buffer_pipeline.reports.daily import daily_report
from buffer_pipeline.reports.due import due_holds
from buffer_pipeline.reports.holds import show_hold
from buffer_pipeline.reports.hourly_counts import count_hours, counts_between
from buffer_pipeline.reports.released import holds_of_batch, released_from, released_shares
from buffer_pipeline.reports.stuck import count_stuck, frozen_owners, stuck_holds, stuck_owners
from buffer_pipeline.reports.totals import currencies
from buffer_pipeline_tests.support.builders import DAY_7, NOON, PAYEE
from buffer_pipeline_tests.support.databases import Books
from buffer_pipeline_tests.support.hot_reads import READS
from buffer_pipeline_tests.support.read_rows import all_backjobs, all_holds, all_lines
from buffer_pipeline_tests.support.work_of_api import requests_are_answered
from buffer_pipeline_tests.support.work_of_debts import debts_are_read, money_is_taken_back
from buffer_pipeline_tests.support.work_of_payouts import (
    a_batched_payout_is_cancelled,
    payouts_are_read,
    payouts_are_requested,
    payouts_are_sent,
)
from buffer_pipeline_tests.support.work_of_platform import (
    LATE,
    admins_refund,
    backjobs_are_decided,
    dates_are_moved,
    earnings_come_in,
    money_moves,
    owners_are_frozen,
    owners_are_known,
    owners_read_their_inbox,
)
from buffer_pipeline_tests.support.work_of_rules import rules_are_kept, rules_are_read
from buffer_pipeline_tests.support.work_of_sandbox import clock_is_moved

HOUR: Final = timedelta(hours=1)


def what_is_due_is_released(releaser: Engine) -> None:
    """Release as the schedule does, with one and with two workers, and check the run."""
    with releaser.begin() as connection:
        assert release_matured(connection, now=DAY_7, batch_limit=1).holds_released == 1
    now = database_clock_of(releaser)
    with releaser.connect() as connection:
        assert release_matured(connection, now=now, batch_limit=1).holds_released == 1
        # Unused ids.
        connection.rollback()
    since = hour_of(now)
    for workers, due_by in ((1, DAY_7), (2, now)):
        run = release_all_due(releaser, due_by=due_by, source="run-1", workers=workers)
        assert run.holds_released > 0
    with releaser.begin() as connection:
        assert reconcile_run(connection, source="run-1", since=since) == []
        due_holds(connection, due_by=DAY_7)
        released_from(connection, source="run-1", since=since)
        released_shares(connection, source="run-1", since=since)


def history_is_sealed(releaser: Engine) -> None:
    """Seal what has been written."""
    assert seal(releaser).lines > 0


def owners_are_notified(releaser: Engine) -> None:
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


def operators_are_alerted(releaser: Engine) -> None:
    """Find the stuck payments and record an alert."""
    with releaser.begin() as connection:
        later = NOON + timedelta(days=30)
        stuck = unreported_stuck_payments(
            connection, now=later, older_than=timedelta(hours=72), period=day_of(later), shown=5
        )
        assert stuck.holds > 0
        record_sent_alert(
            connection,
            kind=AlertKind.STUCK_PAYMENT,
            period=day_of(later),
            now=later,
            hold_ids=stuck.hold_ids,
        )
        assert is_alert_sent(connection, kind=AlertKind.STUCK_PAYMENT, period=day_of(later))
        record_sent_alert(
            connection,
            kind=AlertKind.STUCK_PAYOUT,
            period=day_of(later),
            now=later,
            payout_batch_ids=[1, 2],
        )
        record_sent_alert(
            connection, kind=AlertKind.STUCK_PAYOUT, period=day_of(later), now=later, payout_ids=[3]
        )
        assert reported_payout_batches(connection, period=day_of(later)) == {1, 2}
        assert reported_payouts(connection, period=day_of(later)) == {3}


def _one_hold(connection: Connection, cursor: str | None, **filters: Any) -> Page[Hold]:
    return list_holds(connection, cursor=cursor, limit=1, **filters)


def books_are_read(engine: Engine) -> None:
    """Reports, lists and proofs of a reader and every other role."""
    with snapshot(engine) as connection:
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
        held = all_holds(connection)
        show_hold(connection, hold_id=held[0]["hold_id"])
        assert all_holds(connection, metadata={"order": "A-17"}) != []
        confirm(connection)
        assert find_hold(connection, hold_id=held[0]["hold_id"]).hold_id == held[0]["hold_id"]
        assert all_holds(connection, owner=PAYEE) != []
        for name, read in READS.items():
            if name.startswith("page"):
                read(connection)
        for hold in held:
            assert explain_hold(connection, hold_id=hold["hold_id"]).reasons
            # Also while the client may still ask for a backjob.
            explain_hold(connection, hold_id=hold["hold_id"], now=NOON + HOUR)
        jobs = Counter(hold["job"] for hold in held)
        lists: tuple[dict[str, Any], ...] = (
            {"due_by": LATE},
            {"metadata": {"order": "A-17"}},
            {"job": jobs.most_common(1)[0][0]},
        )
        for filters in lists:
            everything = every_item(partial(_one_hold, connection, **filters))
            assert len(list(everything)) > 1, filters
        assert find_wallet(connection, owner=PAYEE, currency="PHP").owner == PAYEE
        assert list_wallets(connection, owner=PAYEE).items != ()
        assert all_lines(connection, owner=PAYEE) != []
        assert all_backjobs(connection) != []
        assert {line["verb"] for line in audit_trail(connection)} >= {"RESCHEDULE", "DEPOSIT", "FREEZE"}
        assert audit_trail(connection, owner=PAYEE) != []
        rules_are_read(connection)
        debts_are_read(connection)
        assert currencies(connection) != []
        holds_of_batch(connection, batch_id=1)
        count_stuck(connection, now=now, older_than=HOUR)
        stuck_holds(connection, now=now, older_than=HOUR)
        stuck_owners(connection, now=now, older_than=HOUR)
        assert [row["owner"] for row in frozen_owners(connection)] == ["worker-cold"]
        assert connection.execute(text("SELECT version_num FROM buffer.alembic_version")).scalar_one()


def all_is_looked_at(engine: Engine) -> None:
    """Run each check of `doctor` that reads the books."""
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
    payout_doctor.payouts(engine, policy=PayoutPolicy())
    assert doctor.small_books(engine)
    assert doctor.clock(engine, read=lambda: datetime.now(UTC))[0]
    assert doctor.remote_disk(engine)[0]


def figures_are_served(role: Engine) -> None:
    """Serve a scrape of Prometheus."""
    figures = BooksCollector(role, policy=Policy(), endpoints=[]).collect()
    assert next(figures).samples[0].value == 1
    # Left out there, because no hour of these books is counted.
    with role.connect() as connection:
        fetch(connection, "metrics/moved", hours=[NOON])


# In an order in which each finds what it needs.
WORK: Final[list[tuple[str, Callable[[Engine], None]]]] = [
    ("platform", earnings_come_in),
    ("platform", backjobs_are_decided),
    ("platform", owners_are_frozen),
    ("platform", admins_refund),
    ("platform", dates_are_moved),
    ("platform", money_moves),
    ("platform", money_is_taken_back),
    ("platform", rules_are_kept),
    ("platform", owners_are_known),
    ("platform", payouts_are_requested),
    ("payouts", payouts_are_sent),
    ("releaser", what_is_due_is_released),
    ("releaser", history_is_sealed),
    ("releaser", owners_are_notified),
    ("releaser", hours_are_counted),
    ("releaser", operators_are_alerted),
    ("releaser", books_are_read),
    ("releaser", all_is_looked_at),
    ("releaser", figures_are_served),
    ("reader", books_are_read),
    ("reader", figures_are_served),
    ("payouts", payouts_are_read),
    ("reader", payouts_are_read),
    ("releaser", payouts_are_read),
    ("platform", payouts_are_read),
]


def database_clock_of(engine: Engine) -> Any:
    """Return the database's clock."""
    with engine.connect() as connection:
        return database_clock(connection)


def route(name: str) -> Route:
    """Return an endpoint that takes everything."""
    return Route(name=name, types=None, needs_address=name == "mail")


def message(notification: Any) -> InboxMessage:
    """Return a notification's message in the inbox."""
    return InboxMessage(
        notification_id=notification.notification_id,
        owner=notification.owner,
        type=notification.type,
        title="t",
        body="b",
        hold_id=notification.hold_id,
        backjob_id=notification.backjob_id,
        payout_id=notification.payout_id,
        created_at=notification.created_at,
    )


def do_all(books: Books) -> None:
    """Do all work, each part by its role."""
    for role, work in WORK:
        work(books.of(role))
    a_batched_payout_is_cancelled(books.platform, books.payouts)
    owners_read_their_inbox(books.platform)
    clock_is_moved(books.releaser)
    if books.api is not None:
        requests_are_answered(books.owner, books.api)
