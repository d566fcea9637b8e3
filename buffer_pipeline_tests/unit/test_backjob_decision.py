"""Rules 5 and 7: rejections, withdrawals, and what every decision refuses."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Connection

from buffer_pipeline.audit.reconcile import reconcile
from buffer_pipeline.backjob import reject_backjob, withdraw_backjob
from buffer_pipeline.errors import (
    BackjobRefused,
    FreezeRefused,
    InsufficientFunds,
    InvalidInput,
    NotFound,
    Refused,
    WindowClosed,
)
from buffer_pipeline.freeze import unfreeze_hold
from buffer_pipeline.hold import BackjobState, HoldState
from buffer_pipeline.policy import COOLDOWN_HOURS_MAX, Policy
from buffer_pipeline_tests.support.backjobs import DECISIONS, Decide, backjob_row, decide, freeze, request
from buffer_pipeline_tests.support.builders import (
    ADMIN,
    DAY_7,
    JOB,
    NOON,
    PAYEE,
    PAYER,
    books,
    hold_row,
    notifications_of,
    open_freezes,
    place_hold,
    release_date_of,
    state_of,
)

INSTANT = timedelta(microseconds=1)
DAY = timedelta(days=1)


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
    """24 hours are added to the release date, or to the clock if that is later."""
    hold_id = place_hold(connection)
    opened = request(connection)

    rejected = decide(connection, reject_backjob, opened.backjob_id, now=decided_at)

    row = hold_row(connection, hold_id)
    assert rejected == replace(opened, state=BackjobState.REJECTED)
    assert (row["state"], row["release_date"]) == ("BUFFERED", release_date)
    assert row["original_release_date"] == DAY_7
    assert open_freezes(connection, hold_id) == []


@pytest.mark.parametrize("hours", [-1, COOLDOWN_HOURS_MAX + 1])
def test_cooldown_out_of_range_is_refused(hours: int) -> None:
    """A date that went back, or moved by over ten years, would fail `reconcile`."""
    Policy(cooldown_hours=COOLDOWN_HOURS_MAX)

    with pytest.raises(ValueError, match="cooldown_hours"):
        Policy(cooldown_hours=hours)


def test_longest_cooldown_passes_reconcile(connection: Connection) -> None:
    """The books are sound after such a rejection."""
    place_hold(connection)
    opened = request(connection)
    longest = Policy(cooldown_hours=COOLDOWN_HOURS_MAX)

    decide(connection, reject_backjob, opened.backjob_id, policy=longest)

    assert reconcile(connection) == []


def test_cooldown_follows_the_policy(connection: Connection) -> None:
    """The marketplace sets the hours. 0 means 0."""
    hold_id = place_hold(connection)

    opened = request(connection)
    decide(connection, reject_backjob, opened.backjob_id, policy=Policy(cooldown_hours=0))

    assert release_date_of(connection, hold_id) == DAY_7

    opened = request(connection)
    decide(connection, reject_backjob, opened.backjob_id, policy=Policy(cooldown_hours=5))

    assert release_date_of(connection, hold_id) == DAY_7 + timedelta(hours=5)


def test_rejection_reopens_the_window(connection: Connection) -> None:
    """In the added 24 hours the client may request another backjob."""
    place_hold(connection)
    decide(connection, reject_backjob, request(connection).backjob_id)

    with pytest.raises(WindowClosed):
        request(connection, now=DAY_7 + DAY)

    assert request(connection, now=DAY_7 + DAY - INSTANT).state is BackjobState.OPEN


def test_rejection_is_recorded_and_notified(connection: Connection) -> None:
    """With who, why and when. Both sides are notified, the payee of the new date."""
    place_hold(connection)
    opened = request(connection)

    decide(connection, reject_backjob, opened.backjob_id, reason="work is fine", now=NOON + DAY)

    row = backjob_row(connection, opened.backjob_id)
    assert (row["state"], row["decided_by"], row["decision_reason"]) == ("REJECTED", ADMIN, "work is fine")
    assert (row["decided_at"], row["refunded_minor"]) == (NOON + DAY, None)
    assert sorted(notifications_of(connection, PAYEE)[-2:]) == ["BACKJOB_REJECTED", "PAYMENT_RESUMED"]
    assert notifications_of(connection, PAYER) == ["BACKJOB_REJECTED"]


def test_rejection_keeps_a_hold_with_another_freeze_frozen(connection: Connection) -> None:
    """On its own date. The team's other hold is buffered."""
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
def test_withdrawal_keeps_the_date(connection: Connection, now: Any) -> None:
    """Even if it has passed."""
    hold_id = place_hold(connection)
    opened = request(connection)

    withdrawn = decide(connection, withdraw_backjob, opened.backjob_id, by=PAYER, now=now)

    row = hold_row(connection, hold_id)
    assert withdrawn == replace(opened, state=BackjobState.WITHDRAWN)
    assert (row["state"], row["release_date"]) == ("BUFFERED", DAY_7)
    assert backjob_row(connection, opened.backjob_id)["decided_by"] == PAYER
    assert notifications_of(connection, PAYEE)[-1] == "PAYMENT_RESUMED"


def test_withdrawal_keeps_a_hold_with_another_freeze_frozen(connection: Connection) -> None:
    """The client cannot close a RISK freeze."""
    hold_id = place_hold(connection)
    freeze(connection, hold_id)

    decide(connection, withdraw_backjob, request(connection).backjob_id)

    assert state_of(connection, hold_id) is HoldState.FROZEN
    assert open_freezes(connection, hold_id) == ["RISK"]


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
    """Nothing is decided."""
    place_hold(connection)
    opened = request(connection)
    before = books(connection)

    for decision in DECISIONS:
        with pytest.raises(InvalidInput, match=message):
            decide(connection, decision, opened.backjob_id, **change)

    assert books(connection) == before


def test_unknown_backjob_is_refused(connection: Connection) -> None:
    """By its id, also for a number out of range."""
    for unknown in (404, 2**63):
        for decision in DECISIONS:
            with pytest.raises(NotFound, match=f"backjob {unknown}: does not exist"):
                decide(connection, decision, unknown)


@pytest.mark.parametrize("again", DECISIONS)
@pytest.mark.parametrize("decision", DECISIONS)
def test_decided_backjob_is_not_decided_again(
    connection: Connection, decision: Decide, again: Decide
) -> None:
    """A repeated or opposite decision is refused with the backjob's state."""
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
    facts = (refusal.value.backjob_id, refusal.value.job, refusal.value.state, refusal.value.allowed)
    assert facts == (opened.backjob_id, JOB, state, (BackjobState.OPEN,))
    assert books(connection) == before


def test_refusals_of_a_backjob_are_refusals() -> None:
    """Callers can catch one class."""
    kinds = (BackjobRefused, WindowClosed, FreezeRefused, InsufficientFunds, NotFound)

    assert all(issubclass(kind, Refused) for kind in kinds)
