"""Moves of a release date that are repeated with their reference, or concurrent with another verb."""

from typing import Any

import pytest
from sqlalchemy import Connection, Engine

from buffer_pipeline.audit.reconcile import reconcile
from buffer_pipeline.backjob import request_backjob
from buffer_pipeline.errors import (
    ReferenceConflict,
    WindowClosed,
)
from buffer_pipeline.reschedule import Rescheduled
from buffer_pipeline_tests.support.builders import (
    DAY_7,
    JOB,
    NOON,
    PAYER,
    books,
    one_after_the_other,
    place_hold,
)
from buffer_pipeline_tests.support.moves import DAY, TICK, later, move


def test_move_is_replayed(connection: Connection) -> None:
    """Whatever has happened to the hold since."""
    hold_id = place_hold(connection)
    first = move(connection, hold_id, NOON + 2 * DAY, reference="move-1")
    later(connection, hold_id, DAY_7 + DAY, reference="move-2")
    before = books(connection)

    again = move(connection, hold_id, NOON + 2 * DAY, reference="move-1", now=NOON + 5 * DAY)

    assert not first.replayed
    assert again == Rescheduled(
        hold_id=hold_id, release_date=NOON + 2 * DAY, was=DAY_7, hold_ids=(hold_id,), replayed=True
    )
    assert books(connection) == before


@pytest.mark.parametrize(
    "changes", [{"to": NOON + 3 * DAY}, {"by": "client-4"}, {"reason": "another"}, {"hold_id": 2}]
)
def test_other_content_with_a_moves_reference_is_refused(
    connection: Connection, changes: dict[str, Any]
) -> None:
    """The refusal names what the reference was used for."""
    hold_id = place_hold(connection)
    place_hold(connection)
    move_arguments: dict[str, Any] = {"hold_id": hold_id, "to": NOON + 2 * DAY, "reference": "move-1"}
    move(connection, **move_arguments)
    before = books(connection)

    with pytest.raises(ReferenceConflict) as refusal:
        move(connection, **{**move_arguments, **changes})

    assert str(refusal.value) == (
        f"reference 'move-1': already used for the move of hold {hold_id}"
        f" to 2026-03-04T12:00:00+00:00 by '{PAYER}'"
    )
    assert (refusal.value.reference, refusal.value.hold_id) == ("move-1", hold_id)
    assert books(connection) == before


def test_concurrent_moves_run_one_after_the_other(engine: Engine) -> None:
    """The second begins at the first one's date."""
    with engine.begin() as connection:
        hold_id = place_hold(connection)

    first, second = one_after_the_other(
        engine,
        lambda connection: move(connection, hold_id, NOON + 2 * DAY),
        lambda connection: move(connection, hold_id, NOON + DAY),
    )

    assert (first.was, second) == (
        DAY_7,
        Rescheduled(hold_id=hold_id, release_date=NOON + DAY, was=NOON + 2 * DAY, hold_ids=(hold_id,)),
    )
    with engine.connect() as connection:
        assert reconcile(connection) == []


def test_backjob_that_waits_for_a_move_sees_the_new_window(engine: Engine) -> None:
    """The request is checked against the moved date."""
    with engine.begin() as connection:
        hold_id = place_hold(connection)

    _, request = one_after_the_other(
        engine,
        lambda connection: move(connection, hold_id, NOON + DAY),
        lambda connection: request_backjob(connection, job=JOB, by=PAYER, reason="hm", now=NOON + DAY + TICK),
    )

    assert isinstance(request, WindowClosed)
