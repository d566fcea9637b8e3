"""What is allowed and refused for the holds of a frozen owner, and bad input."""

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, func, select

from buffer_pipeline.audit.reconcile import reconcile
from buffer_pipeline.backjob import approve_backjob, reject_backjob, request_backjob
from buffer_pipeline.errors import FreezeRefused, InvalidInput
from buffer_pipeline.hold import FreezeKind, HoldState
from buffer_pipeline.refund import refund_hold
from buffer_pipeline.tables import owner, owner_freeze
from buffer_pipeline_tests.support.builders import (
    ADMIN,
    DAY_7,
    JOB,
    NOON,
    PAYEE,
    PAYER,
    books,
    hold_row,
    place_hold,
    release_date_of,
    state_of,
)
from buffer_pipeline_tests.support.owner_freezes import LATER, freeze, freeze_ids, unfreeze


def test_a_frozen_owners_hold_can_be_refunded(connection: Connection) -> None:
    """The refund closes the hold's freeze. The owner stays frozen with the other holds."""
    hold_id, other = place_hold(connection), place_hold(connection, job="job-9")
    freeze(connection)
    decision: dict[str, Any] = {"hold_id": hold_id, "by": ADMIN, "reason": "a fraud", "now": LATER}

    part = refund_hold(connection, amount="300.00", reference="back-1", **decision)
    rest = refund_hold(connection, reference="back-2", **decision)

    assert (part.state, rest.state) == ("FROZEN", "REFUNDED")
    assert freeze_ids(connection, hold_id) == []
    assert state_of(connection, other) is HoldState.FROZEN
    assert reconcile(connection) == []
    assert unfreeze(connection).holds == 1
    assert reconcile(connection) == []


def test_a_backjob_is_not_approved_while_the_payee_is_frozen(connection: Connection) -> None:
    """As with any ADMIN or RISK freeze. A rejection leaves the hold frozen."""
    hold_id = place_hold(connection)
    backjob = request_backjob(connection, job=JOB, by=PAYER, reason="it leaks", now=NOON)
    freeze(connection, kind=FreezeKind.RISK)
    decision: dict[str, Any] = {"backjob_id": backjob.backjob_id, "by": ADMIN, "reason": "so", "now": NOON}

    with pytest.raises(FreezeRefused, match=f"while RISK freeze .* on hold {hold_id} is open"):
        approve_backjob(connection, **decision)
    reject_backjob(connection, **decision)

    assert (state_of(connection, hold_id), release_date_of(connection, hold_id)) == ("FROZEN", DAY_7)
    assert unfreeze(connection).holds == 1
    assert state_of(connection, hold_id) is HoldState.BUFFERED


def test_unfreezing_is_not_before_the_last_hold_was_frozen(connection: Connection) -> None:
    """If clocks differ by up to a minute, it takes the time of the newest freeze. More is refused."""
    freeze(connection)
    place_hold(connection, held_at=LATER)
    before = books(connection)

    with pytest.raises(InvalidInput) as refusal:
        unfreeze(connection, now=LATER - timedelta(seconds=61))
    assert books(connection) == before
    unfreeze(connection, now=LATER - timedelta(seconds=60))

    assert str(refusal.value) == (
        "now 2026-03-02T16:58:59+00:00: lies before owner 'worker-17' or one of their holds was frozen"
        " at 2026-03-02T17:00:00+00:00"
    )
    assert connection.scalar(select(owner_freeze.c.closed_at)) == LATER
    assert reconcile(connection) == []


@pytest.mark.parametrize("now", [NOON - timedelta(minutes=1), NOON - timedelta(seconds=61)])
def test_unfreezing_is_not_before_the_freeze(connection: Connection, now: Any) -> None:
    """Also for an owner without holds."""
    freeze(connection)

    if NOON - now > timedelta(minutes=1):
        with pytest.raises(InvalidInput, match="lies before owner 'worker-17'"):
            unfreeze(connection, now=now)
    else:
        unfreeze(connection, now=now)
        assert connection.scalar(select(owner_freeze.c.closed_at)) == NOON


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"owner": ""}, "owner: must not be empty"),
        ({"owner": "x" * 201}, "owner: 201 characters"),
        ({"owner": "a\x00b"}, "control character"),
        ({"by": ""}, "by: must not be empty"),
        ({"reason": ""}, "reason: must not be empty"),
        ({"reference": ""}, "reference: must not be empty"),
        ({"now": NOON.replace(tzinfo=None)}, "now .* no time zone"),
    ],
)
def test_bad_input_freezes_and_frees_nothing(
    connection: Connection, change: dict[str, Any], message: str
) -> None:
    """Of a freeze and of its closing."""
    place_hold(connection)
    freeze(connection, owner="worker-18")
    before = books(connection)

    with pytest.raises(InvalidInput, match=message):
        freeze(connection, **change)
    with pytest.raises(InvalidInput, match=message):
        unfreeze(connection, **{"owner": "worker-18", **change})

    assert books(connection) == before


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("BACKJOB", "freeze of owner 'worker-17': a BACKJOB freeze comes with a backjob request"),
        ("WHIM", "freeze of owner 'worker-17': kind 'WHIM' is not ADMIN or RISK"),
        ("", "freeze of owner 'worker-17': kind '' is not ADMIN or RISK"),
    ],
)
def test_kind_is_admin_or_risk(connection: Connection, kind: Any, message: str) -> None:
    """BACKJOB and unknown kinds are refused."""
    before = books(connection)

    with pytest.raises(InvalidInput) as refusal:
        freeze(connection, kind=kind)

    assert (str(refusal.value), refusal.value.owner) == (message, PAYEE)
    assert books(connection) == before


def test_a_wallet_of_an_owner_makes_one_row_of_the_owner(engine: Engine) -> None:
    """However many currencies and earnings, also for the payer."""
    with engine.begin() as connection:
        place_hold(connection)
        place_hold(connection, currency="JPY", amount="10")
        place_hold(connection)

    with engine.connect() as connection:
        assert connection.scalar(select(func.count()).select_from(owner)) == 2
        assert hold_row(connection, 1)["state"] == "BUFFERED"
