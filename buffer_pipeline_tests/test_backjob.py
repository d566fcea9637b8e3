"""Rules 4 to 7: a backjob freezes a job's holds until it is rejected, approved or withdrawn."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any, Final

import pytest
from sqlalchemy import Connection, Engine, event, func, select, text

from buffer_pipeline.backjob import (
    Backjob,
    approve_backjob,
    reject_backjob,
    request_backjob,
    withdraw_backjob,
)
from buffer_pipeline.database import make_engine
from buffer_pipeline.errors import (
    BackjobRefused,
    BooksOutOfBalance,
    FreezeRefused,
    InsufficientFunds,
    InvalidInput,
    NotFound,
    Refused,
    StateRefused,
    WindowClosed,
)
from buffer_pipeline.freeze import Freeze, freeze_hold, unfreeze_hold
from buffer_pipeline.hold import BackjobState, FreezeKind, HoldState
from buffer_pipeline.policy import COOLDOWN_HOURS_MAX, Policy
from buffer_pipeline.reconcile import reconcile
from buffer_pipeline.release import release_matured
from buffer_pipeline.tables import backjob, hold_freeze, notification, transaction
from buffer_pipeline_tests.builders import (
    ADMIN,
    DAY_7,
    JOB,
    PAYEE,
    PAYER,
    Wallet,
    all_at_once,
    books,
    hold_row,
    notifications_of,
    one_behind_the_other,
    open_freezes,
    place_hold,
    release_date_of,
    row_counts,
    state_of,
    transactions_of,
    wallet_of,
)
from buffer_pipeline_tests.conftest import NOON

INSTANT = timedelta(microseconds=1)
DAY = timedelta(days=1)

Decide = Callable[..., Backjob]
DECISIONS: Final[tuple[Decide, ...]] = (reject_backjob, approve_backjob, withdraw_backjob)


def request(connection: Connection, **changes: Any) -> Backjob:
    """Ask for a backjob on JOB as its client, with some of it changed."""
    asked = {"job": JOB, "by": PAYER, "reason": "not as agreed", "now": NOON}
    return request_backjob(connection, **{**asked, **changes})


def decide(connection: Connection, decision: Decide, backjob_id: int, **changes: Any) -> Backjob:
    """Reject, approve or withdraw as an admin, with some of it changed."""
    decided = {"backjob_id": backjob_id, "by": ADMIN, "reason": "looked at it", "now": NOON}
    return decision(connection, **{**decided, **changes})


def freeze(connection: Connection, hold_id: int, kind: FreezeKind = FreezeKind.RISK) -> Freeze:
    """Put one more freeze on a hold."""
    return freeze_hold(connection, hold_id=hold_id, kind=kind, by=ADMIN, reason="a look", now=NOON)


def backjob_row(connection: Connection, backjob_id: int) -> dict[str, Any]:
    """Return the backjob's row by column name."""
    return dict(
        connection.execute(select(backjob).where(backjob.c.backjob_id == backjob_id)).mappings().one()
    )


# Requests


def test_request_freezes_the_jobs_holds(connection: Connection) -> None:
    """A backjob freezes the whole team's holds, and no other job's; no money moves."""
    first = place_hold(connection)
    second = place_hold(connection, payee="worker-18")
    other = place_hold(connection, job="job-9")

    opened = request(connection)

    assert (opened.state, opened.job, opened.hold_ids) == (BackjobState.OPEN, JOB, (first, second))
    assert [state_of(connection, one) for one in (first, second)] == [HoldState.FROZEN] * 2
    assert open_freezes(connection, first) == open_freezes(connection, second) == ["BACKJOB"]
    assert state_of(connection, other) is HoldState.BUFFERED
    assert wallet_of(connection, "worker-18") == Wallet(pending_earnings_minor=100_000)
    assert release_date_of(connection, first) == DAY_7


def test_request_tells_each_payee_once(connection: Connection) -> None:
    """Every payee hears of each frozen payment, and of the backjob once."""
    place_hold(connection)
    place_hold(connection)
    place_hold(connection, payee="worker-18")

    request(connection)

    told = notifications_of(connection, PAYEE)
    assert sorted(told) == ["BACKJOB_RECEIVED", *["PAYMENT_FROZEN"] * 2, *["PAYMENT_PENDING"] * 2]
    assert sorted(notifications_of(connection, "worker-18")) == [
        "BACKJOB_RECEIVED",
        "PAYMENT_FROZEN",
        "PAYMENT_PENDING",
    ]
    assert notifications_of(connection, PAYER) == []


@pytest.mark.parametrize("now", [NOON, DAY_7 - INSTANT])
def test_window_is_open_before_the_release_date(connection: Connection, now: Any) -> None:
    """Up to the last microsecond before the release date a backjob is accepted."""
    hold_id = place_hold(connection)

    request(connection, now=now)

    assert state_of(connection, hold_id) is HoldState.FROZEN


@pytest.mark.parametrize("now", [DAY_7, DAY_7 + INSTANT, DAY_7 + 30 * DAY])
def test_window_is_closed_at_the_release_date(connection: Connection, now: Any) -> None:
    """At the very release date it is too late, though nobody has released the hold."""
    hold_id = place_hold(connection)
    place_hold(connection, release_date=DAY_7 - DAY)
    before = books(connection)

    with pytest.raises(WindowClosed) as refusal:
        request(connection, now=now)

    assert str(refusal.value) == (
        f"job 'job-8': the window closed at 2026-03-09T12:00:00+00:00, it is {now.isoformat()}"
    )
    assert state_of(connection, hold_id) is HoldState.BUFFERED
    assert books(connection) == before


def test_zero_buffer_days_leave_no_window(connection: Connection) -> None:
    """Without a buffer there is nothing to ask a backjob on."""
    place_hold(connection, policy=Policy(buffer_days=0))

    with pytest.raises(WindowClosed):
        request(connection)


def test_only_holds_in_their_window_are_frozen(connection: Connection) -> None:
    """Of a team whose dates differ, the matured and the settled holds stay as they are."""
    settled = place_hold(connection, state=HoldState.RELEASED)
    matured = place_hold(connection, release_date=NOON + DAY)
    open_still = place_hold(connection, release_date=NOON + 3 * DAY)

    opened = request(connection, now=NOON + DAY)

    assert opened.hold_ids == (open_still,)
    assert state_of(connection, settled) is HoldState.RELEASED
    assert state_of(connection, matured) is HoldState.BUFFERED
    assert open_freezes(connection, matured) == []


@pytest.mark.parametrize("state", [HoldState.RELEASED, HoldState.REFUNDED])
def test_settled_job_refuses_a_backjob(connection: Connection, state: HoldState) -> None:
    """What has been paid out or back is beyond a backjob."""
    place_hold(connection, state=state)
    before = books(connection)

    with pytest.raises(WindowClosed, match="all its holds are settled"):
        request(connection)

    assert books(connection) == before


def test_unknown_job_is_refused(connection: Connection) -> None:
    """A job without a hold is named."""
    with pytest.raises(NotFound, match="job 'job-404': has no hold"):
        request(connection, job="job-404")


def test_second_backjob_waits_for_the_first(connection: Connection) -> None:
    """While one is open another is refused, naming the open one."""
    place_hold(connection)
    opened = request(connection)
    before = books(connection)

    with pytest.raises(BackjobRefused, match=f"backjob {opened.backjob_id} is open"):
        request(connection)

    assert books(connection) == before


def test_fourth_backjob_after_three_rejections_is_refused(connection: Connection) -> None:
    """Three may be rejected; the fourth request is refused and the hold stays releasable."""
    hold_id = place_hold(connection)
    for _ in range(3):
        decide(connection, reject_backjob, request(connection).backjob_id)
    before = books(connection)

    with pytest.raises(BackjobRefused, match="3 backjobs were rejected; at most 3"):
        request(connection)

    assert books(connection) == before
    assert state_of(connection, hold_id) is HoldState.BUFFERED


def test_withdrawn_backjobs_do_not_count_as_rejected(connection: Connection) -> None:
    """A client who withdraws has not used up a backjob."""
    place_hold(connection)
    for _ in range(5):
        decide(connection, withdraw_backjob, request(connection).backjob_id)

    assert request(connection).state is BackjobState.OPEN


@pytest.mark.parametrize("allowed", [0, 1])
def test_number_of_backjobs_follows_the_policy(connection: Connection, allowed: int) -> None:
    """The marketplace sets how many may be rejected; 0 means none at all."""
    place_hold(connection)
    policy = Policy(max_backjobs_per_job=allowed)
    for _ in range(allowed):
        decide(connection, reject_backjob, request(connection, policy=policy).backjob_id)

    with pytest.raises(BackjobRefused, match=f"at most {allowed}"):
        request(connection, policy=policy)


def test_backjobs_of_another_job_do_not_count(connection: Connection) -> None:
    """Limits and open backjobs are of one job."""
    place_hold(connection, job="job-9")
    place_hold(connection)
    request(connection, job="job-9")

    assert request(connection).state is BackjobState.OPEN


def test_backjob_joins_an_admins_freeze(connection: Connection) -> None:
    """On a frozen hold a backjob adds its freeze; the payee hears of the freezing once."""
    hold_id = place_hold(connection, state=HoldState.FROZEN)

    opened = request(connection)

    assert opened.hold_ids == (hold_id,)
    assert open_freezes(connection, hold_id) == ["ADMIN", "BACKJOB"]
    assert notifications_of(connection, PAYEE).count("PAYMENT_FROZEN") == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"job": ""}, "job: must not be empty"),
        ({"job": "x" * 201}, "job: 201 characters"),
        ({"by": ""}, "by: must not be empty"),
        ({"by": "a\x00b"}, "control character"),
        ({"reason": ""}, "reason: must not be empty"),
        ({"reason": "x" * 2001}, "reason: 2001 characters"),
        ({"now": NOON.replace(tzinfo=None)}, "now .* no time zone"),
    ],
)
def test_request_refuses_bad_input(connection: Connection, change: dict[str, Any], message: str) -> None:
    """What cannot be recorded is refused, and nothing is frozen."""
    place_hold(connection)
    before = books(connection)

    with pytest.raises(InvalidInput, match=message):
        request(connection, **change)

    assert books(connection) == before


def test_request_is_recorded(connection: Connection) -> None:
    """Who asked, why and when is on the books, of the backjob and of each freeze."""
    hold_id = place_hold(connection)

    opened = request(connection, reason="it leaks", now=NOON + DAY)

    row = backjob_row(connection, opened.backjob_id)
    assert (row["job"], row["requested_by"], row["reason"]) == (JOB, PAYER, "it leaks")
    assert (row["requested_at"], row["state"], row["reference"]) == (NOON + DAY, "OPEN", None)
    put = connection.execute(select(hold_freeze)).mappings().one()
    assert (put["hold_id"], put["opened_by"], put["reason"]) == (hold_id, PAYER, "it leaks")
    assert put["opened_at"] == NOON + DAY
    told = connection.scalars(
        select(notification.c.created_at).where(
            notification.c.type.in_(["BACKJOB_RECEIVED", "PAYMENT_FROZEN"])
        )
    )
    assert list(told) == [NOON + DAY] * 2


def test_backjob_marks_its_hour_before_it_looks(engine: Engine) -> None:
    """Also where there is nothing to ask or to decide: a count of the hour waits for it."""
    marked = select(func.current_setting("buffer.entered_hour", True))
    with engine.begin() as connection:
        with pytest.raises(NotFound):
            request(connection, job="job-404")
        requested = connection.scalar(marked)
    with engine.begin() as connection:
        with pytest.raises(NotFound):
            decide(connection, reject_backjob, 404)
        decided = connection.scalar(marked)

    assert requested == decided == str(int(NOON.timestamp()) // 3600)


def test_requests_at_once_open_one(engine: Engine) -> None:
    """Of clients who ask at the same moment one is heard, the others are refused."""
    with engine.begin() as connection:
        hold_id = place_hold(connection)

    outcomes = all_at_once(engine, *[request] * 4)

    assert sum(isinstance(outcome, Backjob) for outcome in outcomes) == 1
    assert sum(isinstance(outcome, BackjobRefused) for outcome in outcomes) == 3
    with engine.connect() as connection:
        assert row_counts(connection)["backjob"] == 1
        assert open_freezes(connection, hold_id) == ["BACKJOB"]


def test_request_behind_another_is_refused(engine: Engine) -> None:
    """A request that waits for the first one's holds finds its backjob open."""
    with engine.begin() as connection:
        place_hold(connection)

    opened, refusal = one_behind_the_other(engine, request, request)

    assert isinstance(refusal, BackjobRefused)
    assert f"backjob {opened.backjob_id} is open" in str(refusal)


# Rejected


@pytest.mark.parametrize(
    ("decided_at", "release_date"),
    [
        (NOON, DAY_7 + DAY),
        (DAY_7 - INSTANT, DAY_7 + DAY),
        (DAY_7, DAY_7 + DAY),
        (DAY_7 + 3 * DAY, DAY_7 + 4 * DAY),
    ],
)
def test_rejection_adds_a_day_to_the_later_of_date_and_clock(
    connection: Connection, decided_at: Any, release_date: Any
) -> None:
    """The 24 hours are added to the release date, or to the clock where that is later."""
    hold_id = place_hold(connection)
    opened = request(connection)

    rejected = decide(connection, reject_backjob, opened.backjob_id, now=decided_at)

    row = hold_row(connection, hold_id)
    assert rejected == replace(opened, state=BackjobState.REJECTED)
    assert (row["state"], row["release_date"]) == ("BUFFERED", release_date)
    assert row["original_release_date"] == DAY_7
    assert open_freezes(connection, hold_id) == []


@pytest.mark.parametrize("hours", [-1, COOLDOWN_HOURS_MAX + 1])
def test_a_cooldown_that_no_proof_knows_is_refused(hours: int) -> None:
    """A date that went back, or moved by more than ten years, would be a wrong one to `reconcile`."""
    Policy(cooldown_hours=COOLDOWN_HOURS_MAX)

    with pytest.raises(ValueError, match="cooldown_hours"):
        Policy(cooldown_hours=hours)


def test_the_proof_of_dates_knows_the_longest_cooldown(connection: Connection) -> None:
    """A rejection that adds as much as it may leaves books that are sound."""
    place_hold(connection)
    opened = request(connection)
    longest = Policy(cooldown_hours=COOLDOWN_HOURS_MAX)

    decide(connection, reject_backjob, opened.backjob_id, policy=longest)

    assert reconcile(connection) == []


def test_cooldown_follows_the_policy(connection: Connection) -> None:
    """The marketplace sets the hours; 0 means 0."""
    hold_id = place_hold(connection)

    opened = request(connection)
    decide(connection, reject_backjob, opened.backjob_id, policy=Policy(cooldown_hours=0))

    assert release_date_of(connection, hold_id) == DAY_7

    opened = request(connection)
    decide(connection, reject_backjob, opened.backjob_id, policy=Policy(cooldown_hours=5))

    assert release_date_of(connection, hold_id) == DAY_7 + timedelta(hours=5)


def test_rejection_reopens_the_window(connection: Connection) -> None:
    """In the added 24 hours the client may ask again, and no longer."""
    place_hold(connection)
    decide(connection, reject_backjob, request(connection).backjob_id)

    with pytest.raises(WindowClosed):
        request(connection, now=DAY_7 + DAY)

    assert request(connection, now=DAY_7 + DAY - INSTANT).state is BackjobState.OPEN


def test_rejection_is_recorded_and_told(connection: Connection) -> None:
    """Who rejected, why and when is on the books; both sides hear, the payee of the new date."""
    place_hold(connection)
    opened = request(connection)

    decide(connection, reject_backjob, opened.backjob_id, reason="work is fine", now=NOON + DAY)

    row = backjob_row(connection, opened.backjob_id)
    assert (row["state"], row["decided_by"], row["decision_reason"]) == ("REJECTED", ADMIN, "work is fine")
    assert (row["decided_at"], row["refunded_minor"]) == (NOON + DAY, None)
    assert sorted(notifications_of(connection, PAYEE)[-2:]) == ["BACKJOB_REJECTED", "PAYMENT_RESUMED"]
    assert notifications_of(connection, PAYER) == ["BACKJOB_REJECTED"]


def test_rejection_leaves_what_another_freeze_covers(connection: Connection) -> None:
    """A hold that risk control froze too stays frozen on its date; the team's other goes on."""
    covered = place_hold(connection)
    free = place_hold(connection)
    other = freeze(connection, covered)
    opened = request(connection)

    decide(connection, reject_backjob, opened.backjob_id)

    assert state_of(connection, covered) is HoldState.FROZEN
    assert open_freezes(connection, covered) == ["RISK"]
    assert state_of(connection, free) is HoldState.BUFFERED
    unfreeze_hold(connection, freeze_id=other.freeze_id, by=ADMIN, reason="fine", now=NOON)
    assert state_of(connection, covered) is HoldState.BUFFERED


# Withdrawn


@pytest.mark.parametrize("now", [NOON, DAY_7 + 3 * DAY])
def test_withdrawal_leaves_the_date(connection: Connection, now: Any) -> None:
    """Withdrawn, the hold goes back on its own date, also where that has passed."""
    hold_id = place_hold(connection)
    opened = request(connection)

    withdrawn = decide(connection, withdraw_backjob, opened.backjob_id, by=PAYER, now=now)

    row = hold_row(connection, hold_id)
    assert withdrawn == replace(opened, state=BackjobState.WITHDRAWN)
    assert (row["state"], row["release_date"]) == ("BUFFERED", DAY_7)
    assert backjob_row(connection, opened.backjob_id)["decided_by"] == PAYER
    assert notifications_of(connection, PAYEE)[-1] == "PAYMENT_RESUMED"


def test_withdrawal_leaves_what_another_freeze_covers(connection: Connection) -> None:
    """The client cannot take risk control's freeze along."""
    hold_id = place_hold(connection)
    freeze(connection, hold_id)

    decide(connection, withdraw_backjob, request(connection).backjob_id)

    assert state_of(connection, hold_id) is HoldState.FROZEN
    assert open_freezes(connection, hold_id) == ["RISK"]


# Approved


def test_approval_refunds_all_to_the_payer(connection: Connection) -> None:
    """The held money goes to the payer's balance, with a transaction, and both are told."""
    hold_id = place_hold(connection)
    opened = request(connection)

    approved = decide(connection, approve_backjob, opened.backjob_id, now=NOON + DAY)

    row = hold_row(connection, hold_id)
    assert approved == replace(opened, state=BackjobState.APPROVED)
    decided = backjob_row(connection, opened.backjob_id)
    assert (decided["decided_by"], decided["decision_reason"]) == (ADMIN, "looked at it")
    assert (decided["decided_at"], decided["refunded_minor"]) == (NOON + DAY, 100_000)
    assert (row["state"], row["refunded_minor"], row["settled_at"]) == ("REFUNDED", 100_000, NOON + DAY)
    assert wallet_of(connection, PAYEE) == Wallet()
    assert wallet_of(connection, PAYER) == Wallet(balance_minor=100_000)
    assert transactions_of(connection, hold_id) == [("PENDING_EARNING", 100_000), ("REFUND", 100_000)]
    assert sorted(notifications_of(connection, PAYEE)[-2:]) == ["BACKJOB_APPROVED", "PAYMENT_REFUNDED"]
    assert sorted(notifications_of(connection, PAYER)) == ["BACKJOB_APPROVED", "PAYMENT_REFUNDED"]


def test_approval_over_currencies_is_told_once(connection: Connection) -> None:
    """An owner has a wallet in each currency, and hears once that the backjob was approved."""
    place_hold(connection, currency="PHP")
    place_hold(connection, currency="USD")

    decide(connection, approve_backjob, request(connection).backjob_id)

    assert notifications_of(connection, PAYER).count("BACKJOB_APPROVED") == 1
    assert notifications_of(connection, PAYEE).count("BACKJOB_APPROVED") == 1


def test_approval_long_after_the_release_date_still_refunds(connection: Connection) -> None:
    """A frozen hold waits for its decision, however late."""
    hold_id = place_hold(connection)
    opened = request(connection)

    decide(connection, approve_backjob, opened.backjob_id, now=DAY_7 + 100 * DAY)

    assert state_of(connection, hold_id) is HoldState.REFUNDED


def test_approval_refunds_a_team_in_several_currencies(connection: Connection) -> None:
    """Each hold goes back in its own currency; the payer's balance runs along per wallet."""
    for amount, payee, currency in (
        ("100.00", PAYEE, "PHP"),
        ("20.00", "worker-18", "PHP"),
        ("7.00", PAYEE, "USD"),
    ):
        place_hold(connection, amount=amount, payee=payee, currency=currency)

    decide(connection, approve_backjob, request(connection).backjob_id)

    assert wallet_of(connection, PAYER) == Wallet(balance_minor=12_000)
    assert wallet_of(connection, PAYER, "USD") == Wallet(balance_minor=700)
    assert wallet_of(connection, "worker-18") == Wallet()
    after = connection.execute(
        select(transaction.c.balance_after_minor)
        .where(transaction.c.type == "REFUND", transaction.c.currency == "PHP")
        .order_by(transaction.c.transaction_id)
    ).scalars()
    assert list(after) == [10_000, 12_000]


def test_refund_goes_to_the_jobs_payer(connection: Connection) -> None:
    """What a client has back is of their own job; who paid another one has nothing of it."""
    place_hold(connection, amount="100.00")
    place_hold(connection, amount="50.00", job="job-9", payer="client-4")

    decide(connection, approve_backjob, request(connection).backjob_id)

    assert wallet_of(connection, PAYER) == Wallet(balance_minor=10_000)
    assert wallet_of(connection, "client-4") == Wallet()


@pytest.mark.parametrize("kind", [FreezeKind.ADMIN, FreezeKind.RISK])
def test_approval_is_refused_while_another_freeze_stands(connection: Connection, kind: FreezeKind) -> None:
    """The refusal names the other freeze and its hold; after that is gone the approval goes on."""
    place_hold(connection)
    hold_id = place_hold(connection)
    opened = request(connection)
    other = freeze(connection, hold_id, kind)
    before = books(connection)

    with pytest.raises(FreezeRefused, match=f"{kind} freeze {other.freeze_id} on hold {hold_id}"):
        decide(connection, approve_backjob, opened.backjob_id)

    assert books(connection) == before
    unfreeze_hold(connection, freeze_id=other.freeze_id, by=ADMIN, reason="fine", now=NOON)
    assert decide(connection, approve_backjob, opened.backjob_id).state is BackjobState.APPROVED


def test_approval_names_all_freezes_in_its_way(connection: Connection) -> None:
    """Whoever wants to approve has to close each of them first."""
    hold_id = place_hold(connection)
    opened = request(connection)
    admins, risks = (freeze(connection, hold_id, kind) for kind in (FreezeKind.ADMIN, FreezeKind.RISK))

    with pytest.raises(FreezeRefused) as refusal:
        decide(connection, approve_backjob, opened.backjob_id)

    assert str(refusal.value) == (
        f"backjob {opened.backjob_id}: cannot be approved while"
        f" ADMIN freeze {admins.freeze_id} on hold {hold_id},"
        f" RISK freeze {risks.freeze_id} on hold {hold_id} stands"
    )


def test_refund_that_was_not_written_is_refused(engine: Engine, superuser_url: str) -> None:
    """An approval that refunds less than it was to says so, and nothing stays of it."""
    with engine.begin() as connection:
        place_hold(connection)
        backjob_id = request(connection).backjob_id
        before = books(connection)
    with make_engine(superuser_url).begin() as superuser:
        superuser.execute(
            text("CREATE FUNCTION buffer.lose() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'")
        )
        superuser.execute(
            text(
                "CREATE TRIGGER lose BEFORE INSERT ON buffer.transaction FOR EACH ROW"
                " WHEN (NEW.type = 'REFUND') EXECUTE FUNCTION buffer.lose()"
            )
        )

    with engine.connect() as connection:
        with pytest.raises(BooksOutOfBalance) as refusal:
            decide(connection, approve_backjob, backjob_id)
        connection.rollback()
        assert books(connection) == before

    assert str(refusal.value) == (
        f"backjob {backjob_id}: 100000 minor units were to be refunded, 0 were; roll back"
    )


def test_partial_approval_is_split_by_largest_remainder(connection: Connection) -> None:
    """100.00 of three equal holds is 33.34, 33.33 and 33.33, to the last centavo."""
    holds = [place_hold(connection, payee=f"worker-{number}", amount="50.00") for number in range(3)]
    opened = request(connection)

    decide(connection, approve_backjob, opened.backjob_id, amount="100.00")

    assert [hold_row(connection, hold_id)["refunded_minor"] for hold_id in holds] == [3334, 3333, 3333]
    assert wallet_of(connection, PAYER) == Wallet(balance_minor=10_000)
    assert [wallet_of(connection, f"worker-{number}") for number in range(3)] == [
        Wallet(pending_earnings_minor=1666),
        Wallet(pending_earnings_minor=1667),
        Wallet(pending_earnings_minor=1667),
    ]


def test_rest_of_a_partial_approval_waits_on_its_own_date(connection: Connection) -> None:
    """What is not refunded goes back to the buffer, without a day added, and is later released."""
    hold_id = place_hold(connection)
    opened = request(connection)

    decide(connection, approve_backjob, opened.backjob_id, amount=Decimal("999.99"), now=NOON + DAY)

    row = hold_row(connection, hold_id)
    assert (row["state"], row["release_date"], row["settled_at"]) == ("BUFFERED", DAY_7, None)
    assert sorted(notifications_of(connection, PAYEE)[-3:]) == [
        "BACKJOB_APPROVED",
        "PAYMENT_REFUNDED",
        "PAYMENT_RESUMED",
    ]
    released = release_matured(connection, now=DAY_7, batch_limit=10)
    assert released.amounts_minor == {"PHP": 1}
    assert transactions_of(connection, hold_id) == [
        ("PENDING_EARNING", 100_000),
        ("REFUND", 99_999),
        ("EARNING", 1),
    ]


def test_partial_approval_of_all_is_a_whole_one(connection: Connection) -> None:
    """An amount of exactly what is held settles the hold."""
    hold_id = place_hold(connection)
    opened = request(connection)

    decide(connection, approve_backjob, opened.backjob_id, amount="1000")

    assert state_of(connection, hold_id) is HoldState.REFUNDED
    assert "PAYMENT_RESUMED" not in notifications_of(connection, PAYEE)


def test_share_of_nothing_writes_no_transaction(connection: Connection) -> None:
    """A centavo over two holds goes to one; the other resumes without a refund of 0."""
    first = place_hold(connection)
    second = place_hold(connection)
    opened = request(connection)

    decide(connection, approve_backjob, opened.backjob_id, amount="0.01")

    assert transactions_of(connection, first) == [("PENDING_EARNING", 100_000), ("REFUND", 1)]
    assert transactions_of(connection, second) == [("PENDING_EARNING", 100_000)]
    assert [state_of(connection, one) for one in (first, second)] == [HoldState.BUFFERED] * 2


def test_small_hold_may_be_settled_by_a_partial_approval(connection: Connection) -> None:
    """Where a share is all that a hold has, that one is refunded and the others resume."""
    large = place_hold(connection, amount="1000.00")
    small = place_hold(connection, amount="0.01")
    opened = request(connection)

    decide(connection, approve_backjob, opened.backjob_id, amount="600.01")

    assert state_of(connection, small) is HoldState.REFUNDED
    assert state_of(connection, large) is HoldState.BUFFERED
    assert wallet_of(connection, PAYEE) == Wallet(pending_earnings_minor=40_000)


def test_second_partial_backjob_takes_from_the_rest(connection: Connection) -> None:
    """A hold may be refunded in parts, each on its own backjob, up to all of it."""
    hold_id = place_hold(connection)
    first = request(connection)
    decide(connection, approve_backjob, first.backjob_id, amount="600.00")
    second = request(connection)

    with pytest.raises(InsufficientFunds, match=r"400\.01 PHP is above the 400\.00"):
        decide(connection, approve_backjob, second.backjob_id, amount="400.01")
    decide(connection, approve_backjob, second.backjob_id, amount="300.00")
    decide(connection, approve_backjob, request(connection).backjob_id)

    assert transactions_of(connection, hold_id) == [
        ("PENDING_EARNING", 100_000),
        ("REFUND", 60_000),
        ("REFUND", 30_000),
        ("REFUND", 10_000),
    ]
    assert state_of(connection, hold_id) is HoldState.REFUNDED
    assert wallet_of(connection, PAYER) == Wallet(balance_minor=100_000)
    assert wallet_of(connection, PAYEE) == Wallet()


def test_approval_above_what_is_held_is_refused(connection: Connection) -> None:
    """An amount is never cut to what there is."""
    place_hold(connection)
    opened = request(connection)
    before = books(connection)

    with pytest.raises(InsufficientFunds, match=r"1000\.01 PHP is above the 1000\.00 that its holds hold$"):
        decide(connection, approve_backjob, opened.backjob_id, amount="1000.01")

    assert books(connection) == before


def test_partial_approval_over_currencies_is_refused(connection: Connection) -> None:
    """One amount cannot be split over pesos and dollars; the whole may still be approved."""
    place_hold(connection)
    place_hold(connection, currency="USD")
    opened = request(connection)
    before = books(connection)

    with pytest.raises(InvalidInput) as refusal:
        decide(connection, approve_backjob, opened.backjob_id, amount="10.00")

    assert str(refusal.value) == (
        f"backjob {opened.backjob_id}: its holds are in PHP and USD;"
        " approve it whole, name holds of one currency, or reject it"
    )
    assert refusal.value.backjob_id == opened.backjob_id
    assert books(connection) == before
    assert decide(connection, approve_backjob, opened.backjob_id).state is BackjobState.APPROVED


@pytest.mark.parametrize("amount", ["0", "-1", "1.001", "ten", "NaN", 1.5, "10000000000000.01"])
def test_bad_amount_is_refused(connection: Connection, amount: Any) -> None:
    """A refund has the same bounds as every amount."""
    place_hold(connection)
    opened = request(connection)
    before = books(connection)

    with pytest.raises(InvalidInput, match="amount"):
        decide(connection, approve_backjob, opened.backjob_id, amount=amount)

    assert books(connection) == before


# All three decisions


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"by": ""}, "^by: must not be empty"),
        ({"reason": " "}, "reason: must not be empty"),
        ({"reason": "x" * 2001}, "reason: 2001 characters"),
        ({"now": NOON.replace(tzinfo=None)}, "now .* no time zone"),
    ],
)
def test_decision_refuses_bad_input(connection: Connection, change: dict[str, Any], message: str) -> None:
    """What cannot be recorded decides nothing."""
    place_hold(connection)
    opened = request(connection)
    before = books(connection)

    for decision in DECISIONS:
        with pytest.raises(InvalidInput, match=message):
            decide(connection, decision, opened.backjob_id, **change)

    assert books(connection) == before


def test_unknown_backjob_is_refused(connection: Connection) -> None:
    """A backjob that is not there is named, also a number that no id can be."""
    for unknown in (404, 2**63):
        for decision in DECISIONS:
            with pytest.raises(NotFound, match=f"backjob {unknown}: does not exist"):
                decide(connection, decision, unknown)


@pytest.mark.parametrize("again", DECISIONS)
@pytest.mark.parametrize("decision", DECISIONS)
def test_decided_backjob_is_not_decided_again(
    connection: Connection, decision: Decide, again: Decide
) -> None:
    """A decision that is repeated, or reversed, is refused with how the backjob stands."""
    place_hold(connection)
    opened = request(connection)
    state = decide(connection, decision, opened.backjob_id).state
    before = books(connection)

    with pytest.raises(BackjobRefused) as refusal:
        decide(connection, again, opened.backjob_id)

    assert str(refusal.value) == (
        f"backjob {opened.backjob_id}: {state} since 2026-03-02T12:00:00+00:00;"
        " only an open one can be decided"
    )
    assert books(connection) == before


@pytest.mark.parametrize("second", DECISIONS)
@pytest.mark.parametrize("first", DECISIONS)
def test_decision_behind_another_is_refused(engine: Engine, first: Decide, second: Decide) -> None:
    """Of two decisions that race, the later one finds the backjob decided."""
    with engine.begin() as connection:
        place_hold(connection)
        backjob_id = request(connection).backjob_id

    decided, refusal = one_behind_the_other(
        engine,
        lambda connection: decide(connection, first, backjob_id),
        lambda connection: decide(connection, second, backjob_id),
    )

    assert isinstance(refusal, BackjobRefused)
    with engine.connect() as connection:
        assert backjob_row(connection, backjob_id)["state"] == decided.state


def test_decisions_at_once_leave_one(engine: Engine) -> None:
    """Reject, approve and withdraw begun together: one stands, and money moves at most once."""
    with engine.begin() as connection:
        hold_id = place_hold(connection)
        backjob_id = request(connection).backjob_id

    def deciding(decision: Decide) -> Callable[[Connection], Backjob]:
        return lambda connection: decide(connection, decision, backjob_id)

    outcomes = all_at_once(engine, *[deciding(decision) for decision in DECISIONS * 2])

    stands = [outcome for outcome in outcomes if isinstance(outcome, Backjob)]
    assert len(stands) == 1
    with engine.connect() as connection:
        refunded = stands[0].state is BackjobState.APPROVED
        assert wallet_of(connection, PAYER) == Wallet(balance_minor=100_000 if refunded else 0)
        assert wallet_of(connection, PAYEE) == Wallet(pending_earnings_minor=0 if refunded else 100_000)
        assert len(transactions_of(connection, hold_id)) == 1 + refunded


def test_partial_approval_behind_a_whole_one_is_refused(engine: Engine) -> None:
    """The later of two approvals is told that it came too late, not that money is missing."""
    with engine.begin() as connection:
        place_hold(connection)
        backjob_id = request(connection).backjob_id

    _, refusal = one_behind_the_other(
        engine,
        lambda connection: decide(connection, approve_backjob, backjob_id),
        lambda connection: decide(connection, approve_backjob, backjob_id, amount="400.00"),
    )

    assert isinstance(refusal, BackjobRefused)


@pytest.mark.parametrize("amount", [None, "400.00"])
@pytest.mark.parametrize("first", DECISIONS)
def test_approval_overtaken_before_its_locks_is_refused(
    engine: Engine, first: Decide, amount: str | None
) -> None:
    """A backjob that is decided between an approval's first look and its locks stays as decided."""
    with engine.begin() as connection:
        place_hold(connection)
        backjob_id = request(connection).backjob_id
    overtaken: list[str] = []

    def overtake(_connection: object, _cursor: object, statement: str, *_others: object) -> None:
        if "-- Locks a job" in statement and not overtaken:
            overtaken.append(statement)
            with engine.begin() as other:
                decide(other, first, backjob_id)

    event.listen(engine, "before_cursor_execute", overtake)
    with pytest.raises(BackjobRefused), engine.begin() as connection:
        decide(connection, approve_backjob, backjob_id, amount=amount)

    assert overtaken


def test_freeze_behind_an_approval_finds_the_hold_refunded(engine: Engine) -> None:
    """A freeze that waits for an approval comes too late."""
    with engine.begin() as connection:
        hold_id = place_hold(connection)
        backjob_id = request(connection).backjob_id

    _, refusal = one_behind_the_other(
        engine,
        lambda connection: decide(connection, approve_backjob, backjob_id),
        lambda connection: freeze(connection, hold_id),
    )

    assert isinstance(refusal, StateRefused)
    assert refusal.state == HoldState.REFUNDED


@pytest.mark.parametrize("decision", [reject_backjob, withdraw_backjob])
def test_freeze_behind_a_resuming_freezes_again(engine: Engine, decision: Decide) -> None:
    """A freeze that waits while a backjob ends finds the hold buffered, and freezes it."""
    with engine.begin() as connection:
        hold_id = place_hold(connection)
        backjob_id = request(connection).backjob_id

    _, frozen = one_behind_the_other(
        engine,
        lambda connection: decide(connection, decision, backjob_id),
        lambda connection: freeze(connection, hold_id),
    )

    assert isinstance(frozen, Freeze)
    with engine.connect() as connection:
        assert state_of(connection, hold_id) is HoldState.FROZEN
        assert open_freezes(connection, hold_id) == ["RISK"]


def test_approval_behind_a_freeze_is_refused(engine: Engine) -> None:
    """An approval that waits for a freeze sees it, and moves no money."""
    with engine.begin() as connection:
        hold_id = place_hold(connection)
        backjob_id = request(connection).backjob_id

    _, refusal = one_behind_the_other(
        engine,
        lambda connection: freeze(connection, hold_id),
        lambda connection: decide(connection, approve_backjob, backjob_id),
    )

    assert isinstance(refusal, FreezeRefused)
    with engine.connect() as connection:
        assert wallet_of(connection, PAYER) == Wallet()


@pytest.mark.parametrize("decision", [reject_backjob, withdraw_backjob])
def test_last_two_freezes_closed_at_once_resume_the_hold(engine: Engine, decision: Decide) -> None:
    """A backjob's end and an unfreezing that race do not each leave the hold to the other."""
    with engine.begin() as connection:
        hold_id = place_hold(connection)
        other = freeze(connection, hold_id)
        backjob_id = request(connection).backjob_id

    def unfreeze(connection: Connection) -> Freeze:
        return unfreeze_hold(connection, freeze_id=other.freeze_id, by=ADMIN, reason="fine", now=NOON)

    one_behind_the_other(engine, lambda connection: decide(connection, decision, backjob_id), unfreeze)

    with engine.connect() as connection:
        assert open_freezes(connection, hold_id) == []
        assert state_of(connection, hold_id) is HoldState.BUFFERED


def test_refusals_of_a_backjob_are_refusals() -> None:
    """A caller that only wants to say no catches one class."""
    kinds = (BackjobRefused, WindowClosed, FreezeRefused, InsufficientFunds, NotFound)

    assert all(issubclass(kind, Refused) for kind in kinds)
