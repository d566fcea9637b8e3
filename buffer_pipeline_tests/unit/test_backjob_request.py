"""Rule 4: a client's request freezes the job's holds while their window is open."""

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, func, select

from buffer_pipeline.backjob import Backjob, reject_backjob, withdraw_backjob
from buffer_pipeline.errors import BackjobRefused, InvalidInput, NotFound, WindowClosed
from buffer_pipeline.hold import BackjobState, HoldState
from buffer_pipeline.policy import Policy
from buffer_pipeline.tables import hold_freeze, notification
from buffer_pipeline_tests.support.backjobs import backjob_row, decide, request
from buffer_pipeline_tests.support.builders import (
    DAY_7,
    JOB,
    NOON,
    PAYEE,
    PAYER,
    Wallet,
    all_at_once,
    books,
    notifications_of,
    one_after_the_other,
    open_freezes,
    place_hold,
    release_date_of,
    row_counts,
    state_of,
    wallet_of,
)

INSTANT = timedelta(microseconds=1)
DAY = timedelta(days=1)


def test_request_freezes_the_jobs_holds(connection: Connection) -> None:
    """The whole team's holds and no other job's. No money moves."""
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


def test_request_notifies_each_payee_once(connection: Connection) -> None:
    """Of each frozen payment, and once of the backjob."""
    place_hold(connection)
    place_hold(connection)
    place_hold(connection, payee="worker-18")

    request(connection)

    notified = notifications_of(connection, PAYEE)
    assert sorted(notified) == ["BACKJOB_RECEIVED", *["PAYMENT_FROZEN"] * 2, *["PAYMENT_PENDING"] * 2]
    assert sorted(notifications_of(connection, "worker-18")) == [
        "BACKJOB_RECEIVED",
        "PAYMENT_FROZEN",
        "PAYMENT_PENDING",
    ]
    assert notifications_of(connection, PAYER) == []


@pytest.mark.parametrize("now", [NOON, DAY_7 - INSTANT])
def test_window_is_open_before_the_release_date(connection: Connection, now: Any) -> None:
    """Up to the last microsecond before it."""
    hold_id = place_hold(connection)

    request(connection, now=now)

    assert state_of(connection, hold_id) is HoldState.FROZEN


@pytest.mark.parametrize("now", [DAY_7, DAY_7 + INSTANT, DAY_7 + 30 * DAY])
def test_window_is_closed_at_the_release_date(connection: Connection, now: Any) -> None:
    """Even if the hold is not released yet."""
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
    """Without a buffer, no backjob is possible."""
    place_hold(connection, policy=Policy(buffer_days=0))

    with pytest.raises(WindowClosed):
        request(connection)


def test_only_holds_in_their_window_are_frozen(connection: Connection) -> None:
    """Matured and settled holds of the team stay unchanged."""
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
    """Everything has been paid out or refunded."""
    place_hold(connection, state=state)
    before = books(connection)

    with pytest.raises(WindowClosed, match="all its holds are settled"):
        request(connection)

    assert books(connection) == before


def test_unknown_job_is_refused(connection: Connection) -> None:
    """By name."""
    with pytest.raises(NotFound, match="job 'job-404': has no hold"):
        request(connection, job="job-404")


def test_second_backjob_is_refused_while_one_is_open(connection: Connection) -> None:
    """The refusal names the open one."""
    place_hold(connection)
    opened = request(connection)
    before = books(connection)

    with pytest.raises(BackjobRefused, match=f"backjob {opened.backjob_id} is open"):
        request(connection)

    assert books(connection) == before


def test_fourth_backjob_after_three_rejections_is_refused(connection: Connection) -> None:
    """The hold can still be released."""
    hold_id = place_hold(connection)
    for _ in range(3):
        decide(connection, reject_backjob, request(connection).backjob_id)
    before = books(connection)

    with pytest.raises(BackjobRefused, match="3 backjobs were rejected; at most 3"):
        request(connection)

    assert books(connection) == before
    assert state_of(connection, hold_id) is HoldState.BUFFERED


def test_withdrawn_backjobs_do_not_count_as_rejected(connection: Connection) -> None:
    """They do not count towards the limit."""
    place_hold(connection)
    for _ in range(5):
        decide(connection, withdraw_backjob, request(connection).backjob_id)

    assert request(connection).state is BackjobState.OPEN


@pytest.mark.parametrize("allowed", [0, 1])
def test_number_of_backjobs_follows_the_policy(connection: Connection, allowed: int) -> None:
    """The marketplace sets the limit of rejections. 0 allows no backjob."""
    place_hold(connection)
    policy = Policy(max_backjobs_per_job=allowed)
    for _ in range(allowed):
        decide(connection, reject_backjob, request(connection, policy=policy).backjob_id)

    with pytest.raises(BackjobRefused, match=f"at most {allowed}"):
        request(connection, policy=policy)


def test_backjobs_of_another_job_do_not_count(connection: Connection) -> None:
    """Limits and open backjobs are per job."""
    place_hold(connection, job="job-9")
    place_hold(connection)
    request(connection, job="job-9")

    assert request(connection).state is BackjobState.OPEN


def test_backjob_adds_its_freeze_to_an_admins(connection: Connection) -> None:
    """The payee is notified once that the hold is frozen."""
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
    """Nothing is frozen."""
    place_hold(connection)
    before = books(connection)

    with pytest.raises(InvalidInput, match=message):
        request(connection, **change)

    assert books(connection) == before


def test_request_is_recorded(connection: Connection) -> None:
    """With who, why and when, for the backjob and each freeze."""
    hold_id = place_hold(connection)

    opened = request(connection, reason="it leaks", now=NOON + DAY)

    row = backjob_row(connection, opened.backjob_id)
    assert (row["job"], row["requested_by"], row["reason"]) == (JOB, PAYER, "it leaks")
    assert (row["requested_at"], row["state"], row["reference"]) == (NOON + DAY, "OPEN", None)
    put = connection.execute(select(hold_freeze)).mappings().one()
    assert (put["hold_id"], put["opened_by"], put["reason"]) == (hold_id, PAYER, "it leaks")
    assert put["opened_at"] == NOON + DAY
    notified = connection.scalars(
        select(notification.c.created_at).where(
            notification.c.type.in_(["BACKJOB_RECEIVED", "PAYMENT_FROZEN"])
        )
    )
    assert list(notified) == [NOON + DAY] * 2


def test_backjob_marks_its_hour_before_it_reads(engine: Engine) -> None:
    """Even if it is refused. A count of the hour waits for it."""
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


def test_one_of_concurrent_requests_opens_a_backjob(engine: Engine) -> None:
    """The others are refused."""
    with engine.begin() as connection:
        hold_id = place_hold(connection)

    outcomes = all_at_once(engine, *[request] * 4)

    assert sum(isinstance(outcome, Backjob) for outcome in outcomes) == 1
    assert sum(isinstance(outcome, BackjobRefused) for outcome in outcomes) == 3
    with engine.connect() as connection:
        assert row_counts(connection)["backjob"] == 1
        assert open_freezes(connection, hold_id) == ["BACKJOB"]


def test_request_after_another_is_refused(engine: Engine) -> None:
    """A request that waits for another one's holds finds its backjob open."""
    with engine.begin() as connection:
        place_hold(connection)

    opened, refusal = one_after_the_other(engine, request, request)

    assert isinstance(refusal, BackjobRefused)
    assert f"backjob {opened.backjob_id} is open" in str(refusal)
