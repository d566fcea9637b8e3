"""Repeated requests and decisions of backjobs, and repeated freezes: the result of the second call."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, func, select

from buffer_pipeline.backjob import (
    Backjob,
    approve_backjob,
    reject_backjob,
    request_backjob,
    withdraw_backjob,
)
from buffer_pipeline.errors import InvalidInput, NotAllowed, ReferenceConflict
from buffer_pipeline.freeze import freeze_hold, unfreeze_hold
from buffer_pipeline.hold import BackjobState, FreezeKind, HoldState
from buffer_pipeline_tests.support.builders import (
    ADMIN,
    JOB,
    NOON,
    PAYER,
    Wallet,
    books,
    open_freezes,
    place_hold,
    row_counts,
    state_of,
    wallet_of,
)

LATER = NOON + timedelta(hours=1)


def test_a_request_and_a_decision_may_have_the_same_reference(connection: Connection) -> None:
    """References are separate for each kind of verb."""
    hold_id = place_hold(connection)
    same: dict[str, Any] = {"by": ADMIN, "reason": "hm", "now": NOON, "reference": "once"}

    opened = request_backjob(connection, job=JOB, **same)
    rejected = reject_backjob(connection, backjob_id=opened.backjob_id, **same)
    frozen = freeze_hold(connection, hold_id=hold_id, kind=FreezeKind.ADMIN, **same)
    closed = unfreeze_hold(connection, freeze_id=frozen.freeze_id, **same)

    assert [one.replayed for one in (opened, rejected, frozen, closed)] == [False] * 4


@pytest.mark.parametrize(
    ("decide", "state"),
    [
        (reject_backjob, BackjobState.REJECTED),
        (withdraw_backjob, BackjobState.WITHDRAWN),
        (approve_backjob, BackjobState.APPROVED),
    ],
)
def test_replayed_request_returns_the_present_backjob(
    connection: Connection, decide: Callable[..., Backjob], state: BackjobState
) -> None:
    """A backjob that was decided meanwhile is not opened again."""
    hold_id = place_hold(connection)
    arguments: dict[str, Any] = {"job": JOB, "by": PAYER, "reason": "hm", "now": NOON, "reference": "once"}
    opened = request_backjob(connection, **arguments)
    late = place_hold(connection)
    decide(connection, backjob_id=opened.backjob_id, by=ADMIN, reason="looked at it", now=NOON)

    again = request_backjob(connection, **arguments)

    assert (again.backjob_id, again.state, again.replayed) == (opened.backjob_id, state, True)
    assert again.hold_ids == (hold_id, late)
    assert row_counts(connection)["backjob"] == 1


def test_replay_of_a_request_by_another_payer_is_refused(connection: Connection) -> None:
    """Even if the reference is known."""
    place_hold(connection)
    arguments: dict[str, Any] = {"job": JOB, "by": PAYER, "reason": "hm", "now": NOON, "reference": "once"}
    request_backjob(connection, payer=PAYER, **arguments)

    with pytest.raises(NotAllowed, match="its payer is 'client-3', not 'client-4'"):
        request_backjob(connection, payer="client-4", **arguments)

    assert request_backjob(connection, payer=PAYER, **arguments).replayed


def test_replay_of_another_decision_is_refused(connection: Connection) -> None:
    """A replay must name the same decision."""
    place_hold(connection)
    opened = request_backjob(connection, job=JOB, by=PAYER, reason="hm", now=NOON)
    decided: dict[str, Any] = {"backjob_id": opened.backjob_id, "by": ADMIN, "reason": "x", "now": NOON}
    reject_backjob(connection, reference="once", **decided)

    with pytest.raises(ReferenceConflict) as refusal:
        approve_backjob(connection, reference="once", **decided)

    assert str(refusal.value) == (
        f"reference 'once': already used for backjob {opened.backjob_id}, REJECTED by 'admin-1'"
    )
    assert refusal.value.state == BackjobState.REJECTED
    assert wallet_of(connection, PAYER) == Wallet()


def test_replay_of_an_approval_must_repeat_amount_and_holds(connection: Connection) -> None:
    """Other amounts or holds are refused. Without an amount, the caller meant everything."""
    first, second = place_hold(connection), place_hold(connection)
    opened = request_backjob(connection, job=JOB, by=PAYER, reason="hm", now=NOON)
    arguments: dict[str, Any] = {"backjob_id": opened.backjob_id, "by": ADMIN, "reason": "x", "now": NOON}
    approve_backjob(connection, hold_ids=[first], amount="400.00", reference="once", **arguments)
    before = books(connection)

    for same in ({"amount": "400"}, {"amount": 400, "hold_ids": [first]}):
        assert approve_backjob(connection, reference="once", **arguments, **same).replayed
    for other in (
        {},
        {"hold_ids": [first]},
        {"amount": "400.01"},
        {"hold_ids": [second]},
        {"amount": "400", "hold_ids": [second]},
    ):
        with pytest.raises(ReferenceConflict) as refusal:
            approve_backjob(connection, reference="once", **arguments, **other)
        assert str(refusal.value) == (
            f"reference 'once': already used for backjob {opened.backjob_id},"
            " APPROVED with another amount or other holds"
        )
        assert (refusal.value.reference, refusal.value.backjob_id) == ("once", opened.backjob_id)
        assert refusal.value.state == "APPROVED"
    with pytest.raises(InvalidInput, match=r"^amount 400\.001: PHP has 2 places, this has 3$"):
        approve_backjob(connection, reference="once", **arguments, amount="400.001")

    assert books(connection) == before


def test_whole_approval_is_replayed_without_an_amount(connection: Connection) -> None:
    """Of all holds, or of the one hold that it named and refunded whole."""
    first, _ = place_hold(connection), place_hold(connection)
    opened = request_backjob(connection, job=JOB, by=PAYER, reason="hm", now=NOON)
    arguments: dict[str, Any] = {"backjob_id": opened.backjob_id, "by": ADMIN, "reason": "x", "now": NOON}
    approve_backjob(connection, hold_ids=[first], reference="once", **arguments)

    assert approve_backjob(connection, hold_ids=[first], reference="once", **arguments).replayed
    later = request_backjob(connection, job=JOB, by=PAYER, reason="hm", now=NOON)
    approve_backjob(connection, **{**arguments, "backjob_id": later.backjob_id})
    # All is refunded now, but not by the approval with this reference.
    with pytest.raises(ReferenceConflict, match="another amount or other holds"):
        approve_backjob(connection, reference="once", **arguments)


def test_replayed_freeze_returns_the_present_hold(connection: Connection) -> None:
    """A freeze that was closed meanwhile is not opened again."""
    hold_id = place_hold(connection)
    arguments: dict[str, Any] = {"by": ADMIN, "reason": "hm", "now": NOON}
    frozen = freeze_hold(connection, hold_id=hold_id, kind=FreezeKind.RISK, reference="once", **arguments)
    unfreeze_hold(connection, freeze_id=frozen.freeze_id, **arguments)

    again = freeze_hold(connection, hold_id=hold_id, kind=FreezeKind.RISK, reference="once", **arguments)

    assert (again.freeze_id, again.state, again.replayed) == (frozen.freeze_id, HoldState.BUFFERED, True)
    assert open_freezes(connection, hold_id) == []
    assert state_of(connection, hold_id) is HoldState.BUFFERED


def test_unfreeze_marks_its_hour_before_it_waits_for_its_reference(engine: Engine) -> None:
    """A count of the hour waits for it."""
    with engine.begin() as connection:
        with pytest.raises(LookupError):
            unfreeze_hold(connection, freeze_id=404, by=ADMIN, reason="x", now=NOON, reference="once")

        marked = connection.scalar(select(func.current_setting("buffer.entered_hour", True)))

    assert marked == str(int(NOON.timestamp()) // 3600)
