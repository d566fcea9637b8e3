"""Rule 13: the release date of an unsettled hold is moved, earlier by its payer or later by an admin."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, select

from buffer_pipeline.audit.reconcile import reconcile
from buffer_pipeline.backjob import reject_backjob, request_backjob
from buffer_pipeline.errors import (
    DateRefused,
    InvalidInput,
    NotAllowed,
    NotFound,
    StateRefused,
    WindowClosed,
)
from buffer_pipeline.freeze import unfreeze_hold
from buffer_pipeline.hold import HoldState
from buffer_pipeline.policy import Policy
from buffer_pipeline.release import release_matured
from buffer_pipeline.reschedule import Rescheduled, reschedule_hold
from buffer_pipeline.tables import audit_line, hold_freeze, notification, unsettled_hold
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
    place_hold,
    release_date_of,
    state_of,
)
from buffer_pipeline_tests.support.moves import DAY, LATEST, TICK, later, move


def test_a_payer_moves_the_date_to_an_earlier_one(connection: Connection) -> None:
    """The payer gives up a part of the window. The state stays, and the release hour follows."""
    hold_id = place_hold(connection)

    done = move(connection, hold_id, NOON + 2 * DAY)

    assert done == Rescheduled(hold_id=hold_id, release_date=NOON + 2 * DAY, was=DAY_7, hold_ids=(hold_id,))
    row = connection.execute(select(unsettled_hold)).mappings().one()
    assert (row["state"], row["release_date"], row["release_hour"]) == (
        "BUFFERED",
        NOON + 2 * DAY,
        NOON + 2 * DAY,
    )
    assert hold_row(connection, hold_id)["original_release_date"] == DAY_7
    assert reconcile(connection) == []


def test_an_admin_moves_the_date_to_a_later_one(connection: Connection) -> None:
    """Up to 90 days after the original date."""
    hold_id = place_hold(connection)

    done = later(connection, hold_id, LATEST)

    assert (done.release_date, done.was) == (LATEST, DAY_7)
    assert release_date_of(connection, hold_id) == LATEST
    assert reconcile(connection) == []


def test_a_move_is_in_the_audit_trail(connection: Connection) -> None:
    """One line with who, when, why and both dates."""
    hold_id = place_hold(connection)

    later(connection, hold_id, DAY_7 + DAY, reference="move-1")

    row = dict(connection.execute(select(audit_line)).mappings().one())
    del row["audit_id"]
    assert row == {
        "at": NOON,
        "by": ADMIN,
        "verb": "RESCHEDULE",
        "owner": PAYEE,
        "hold_id": hold_id,
        "transaction_id": None,
        "reference": "move-1",
        "reason": "abroad",
        "from_date": DAY_7,
        "to_date": DAY_7 + DAY,
        "detail": {"as_admin": True},
    }


def test_only_the_payee_is_notified_of_the_new_date(connection: Connection) -> None:
    """The payer is not."""
    hold_id = place_hold(connection)

    move(connection, hold_id, NOON + DAY)

    assert notifications_of(connection, PAYEE) == ["PAYMENT_PENDING", "PAYMENT_RESCHEDULED"]
    assert notifications_of(connection, PAYER) == []
    notified = connection.execute(
        select(notification).order_by(notification.c.notification_id.desc())
    ).first()
    assert notified is not None
    assert (notified.hold_id, notified.amount_minor, notified.currency) == (hold_id, 100_000, "PHP")
    assert (notified.release_date, notified.created_at, notified.backjob_id) == (NOON + DAY, NOON, None)


def test_the_window_moves_with_the_date(connection: Connection) -> None:
    """A backjob is accepted until the new date."""
    shortened = place_hold(connection, job="job-short")
    extended = place_hold(connection, job="job-long")

    move(connection, shortened, NOON + DAY)
    later(connection, extended, DAY_7 + DAY)

    with pytest.raises(WindowClosed, match="job 'job-short': the window closed at 2026-03-03"):
        request_backjob(connection, job="job-short", by=PAYER, reason="hm", now=NOON + DAY)
    request_backjob(connection, job="job-long", by=PAYER, reason="hm", now=DAY_7)
    assert state_of(connection, extended) is HoldState.FROZEN


def test_a_release_follows_the_new_date(connection: Connection) -> None:
    """A hold moved earlier is released then; one moved later waits."""
    earlier = place_hold(connection)
    put_off = place_hold(connection)
    move(connection, earlier, NOON + DAY)
    later(connection, put_off, DAY_7 + DAY)

    first = release_matured(connection, now=NOON + DAY, batch_limit=10)
    none = release_matured(connection, now=DAY_7, batch_limit=10)
    last = release_matured(connection, now=DAY_7 + DAY, batch_limit=10)

    assert (first.holds_released, none.holds_released, last.holds_released) == (1, 0, 1)
    assert hold_row(connection, put_off)["release_date"] == DAY_7 + DAY
    assert reconcile(connection) == []


def test_due_hold_can_be_postponed(connection: Connection) -> None:
    """By an admin, and the window opens again."""
    hold_id = place_hold(connection)

    later(connection, hold_id, DAY_7 + DAY, now=DAY_7 + timedelta(minutes=1))

    assert release_matured(connection, now=DAY_7 + timedelta(hours=1), batch_limit=10).holds_released == 0


def test_frozen_hold_keeps_its_moved_date(connection: Connection) -> None:
    """It stays FROZEN and is buffered later with that date."""
    hold_id = place_hold(connection, state=HoldState.FROZEN)

    later(connection, hold_id, DAY_7 + 3 * DAY)

    assert state_of(connection, hold_id) is HoldState.FROZEN
    freeze_id = connection.execute(select(hold_freeze.c.freeze_id)).scalar_one()
    unfreeze_hold(connection, freeze_id=freeze_id, by=ADMIN, reason="fine", now=NOON)
    assert (state_of(connection, hold_id), release_date_of(connection, hold_id)) == (
        HoldState.BUFFERED,
        DAY_7 + 3 * DAY,
    )
    assert reconcile(connection) == []


def test_a_cooldown_counts_from_the_moved_date(connection: Connection) -> None:
    """Both together pass `reconcile`."""
    hold_id = place_hold(connection)
    backjob = request_backjob(connection, job=JOB, by=PAYER, reason="hm", now=NOON)
    later(connection, hold_id, DAY_7 + 90 * DAY)

    reject_backjob(connection, backjob_id=backjob.backjob_id, by=ADMIN, reason="fine", now=NOON)

    assert release_date_of(connection, hold_id) == DAY_7 + 91 * DAY
    assert reconcile(connection) == []


def test_a_date_beyond_the_cap_can_only_come_closer(connection: Connection) -> None:
    """After a cooldown beyond the cap, a date can only be moved back."""
    hold_id = place_hold(connection)
    later(connection, hold_id, LATEST)
    backjob = request_backjob(connection, job=JOB, by=PAYER, reason="hm", now=NOON)
    reject_backjob(connection, backjob_id=backjob.backjob_id, by=ADMIN, reason="fine", now=NOON)

    with pytest.raises(DateRefused, match="at most 90 days after its original release date"):
        later(connection, hold_id, LATEST + DAY + TICK)
    done = later(connection, hold_id, LATEST + DAY - TICK)

    assert (done.was, done.release_date) == (LATEST + DAY, LATEST + DAY - TICK)
    assert reconcile(connection) == []


@pytest.mark.parametrize("by", [PAYEE, "client-4", ADMIN])
def test_only_payer_and_admin_move_a_date(connection: Connection, by: str) -> None:
    """Not the payee, another client, or an admin without `as_admin`."""
    hold_id = place_hold(connection)
    before = books(connection)

    with pytest.raises(NotAllowed) as refusal:
        move(connection, hold_id, NOON + DAY, by=by)

    assert str(refusal.value) == (
        f"hold {hold_id}: {by!r} may not move its release date; its payer '{PAYER}' or an admin may"
    )
    assert (refusal.value.hold_id, refusal.value.job) == (hold_id, JOB)
    assert books(connection) == before


def test_a_payer_never_moves_a_date_later(connection: Connection) -> None:
    """Only an admin can."""
    hold_id = place_hold(connection)
    before = books(connection)

    with pytest.raises(NotAllowed) as refusal:
        move(connection, hold_id, DAY_7 + TICK)

    assert str(refusal.value) == (
        f"hold {hold_id}: its payer may move its release date only to before 2026-03-09T12:00:00+00:00;"
        " an admin may move it to a later one"
    )
    assert (refusal.value.hold_id, refusal.value.job) == (hold_id, JOB)
    assert books(connection) == before
    move(connection, hold_id, DAY_7 - TICK)


@pytest.mark.parametrize(
    ("to", "words"),
    [
        (DAY_7, "that is its release date already"),
        (
            NOON - TICK,
            "that is before now, 2026-03-02T12:00:00+00:00; to release it at once, use release-now"
            " (release_early)",
        ),
        (
            LATEST + TICK,
            "at most 90 days after its original release date, which is until 2026-06-07T12:00:00+00:00",
        ),
    ],
)
def test_invalid_date_is_refused(connection: Connection, to: datetime, words: str) -> None:
    """The present one, one before now, or one beyond the cap. Nothing is written."""
    hold_id = place_hold(connection)
    before = books(connection)

    with pytest.raises(DateRefused) as refusal:
        later(connection, hold_id, to, reference="move-1")

    assert str(refusal.value) == f"hold {hold_id}: cannot be moved to {to.isoformat()}; {words}"
    assert refusal.value.hold_id == hold_id
    assert books(connection) == before


def test_now_is_the_earliest_date(connection: Connection) -> None:
    """The hold is due at that moment."""
    hold_id = place_hold(connection)

    move(connection, hold_id, NOON + DAY, now=NOON + DAY)

    assert release_matured(connection, now=NOON + DAY, batch_limit=10).holds_released == 1


def test_a_payer_keeps_the_minimum_days_and_an_admin_may_not(connection: Connection) -> None:
    """They count from the beginning of the hold."""
    hold_id = place_hold(connection)
    policy = Policy(min_days=3)

    with pytest.raises(
        DateRefused,
        match=r"its payer may move it to 2026-03-05T12:00:00\+00:00 at the earliest; an admin may to before",
    ):
        move(connection, hold_id, NOON + 3 * DAY - TICK, policy=policy)
    move(connection, hold_id, NOON + 3 * DAY, policy=policy)
    later(connection, hold_id, NOON + DAY, policy=policy)

    assert release_date_of(connection, hold_id) == NOON + DAY


@pytest.mark.parametrize("state", [HoldState.RELEASED, HoldState.REFUNDED])
def test_date_of_a_settled_hold_cannot_be_moved(connection: Connection, state: HoldState) -> None:
    """By nobody."""
    hold_id = place_hold(connection, state=state)
    before = books(connection)

    with pytest.raises(StateRefused) as refusal:
        move(connection, hold_id, NOON + DAY)

    assert (
        str(refusal.value) == f"hold {hold_id}: cannot reschedule from {state}; that needs BUFFERED or FROZEN"
    )
    assert books(connection) == before


@pytest.mark.parametrize("hold_id", [404, 0, 2**70])
def test_an_unknown_hold_is_not_found(connection: Connection, hold_id: int) -> None:
    """By its id."""
    with pytest.raises(NotFound, match=f"hold {hold_id}: does not exist") as refusal:
        move(connection, hold_id, NOON + DAY)

    assert refusal.value.hold_id == hold_id


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"to": datetime(2026, 3, 4)}, "^to 2026-03-04T00:00:00: has no time zone"),  # noqa: DTZ001
        ({"to": datetime(3000, 1, 1, tzinfo=UTC)}, "^to 3000-01-01.*: lies outside the years"),
        ({"now": datetime(2026, 3, 2)}, "^now 2026-03-02T00:00:00: has no time zone"),  # noqa: DTZ001
        ({"by": ""}, "^by: must not be empty"),
        ({"reason": " "}, "^reason: must not be empty"),
        ({"reference": ""}, "^reference: must not be empty"),
        ({"hold_id": 1.5}, "^hold 1.5: needs an int"),
    ],
)
def test_wrong_values_are_refused(connection: Connection, changes: dict[str, Any], words: str) -> None:
    """By name, before the database is read."""
    move_arguments: dict[str, Any] = {
        "hold_id": 1,
        "to": NOON + DAY,
        "by": PAYER,
        "reason": "hm",
        "now": NOON,
    }

    with pytest.raises(InvalidInput, match=words):
        reschedule_hold(connection, **{**move_arguments, **changes})
