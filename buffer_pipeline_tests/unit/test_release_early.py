"""Rule 3: the payer or an admin may release a hold before its date."""

from typing import Any

import pytest
from sqlalchemy import Connection, select

from buffer_pipeline.errors import InvalidInput, NotAllowed, NotFound, StateRefused
from buffer_pipeline.hold import HoldState
from buffer_pipeline.tables import batch
from buffer_pipeline_tests.support.builders import (
    ADMIN,
    JOB,
    NOON,
    PAYEE,
    PAYER,
    Wallet,
    books,
    notifications_of,
    place_hold,
    state_of,
    wallet_of,
)
from buffer_pipeline_tests.support.releases import early


def test_payer_releases_early(connection: Connection) -> None:
    """The payer gives up the window. The batch has who and why."""
    hold_id = place_hold(connection)

    released = early(connection, hold_id=hold_id)

    assert (released.holds_released, released.amounts_minor) == (1, {"PHP": 100_000})
    assert state_of(connection, hold_id) is HoldState.RELEASED
    assert wallet_of(connection, PAYEE) == Wallet(balance_minor=100_000)
    assert notifications_of(connection, PAYEE) == ["PAYMENT_PENDING", "PAYMENT_RELEASED"]
    row = connection.execute(select(batch)).mappings().one()
    assert (row["kind"], row["source"], row["reason"]) == ("EARLY", PAYER, "well done")
    assert (row["due_by"], row["recorded_at"]) == (None, NOON)


def test_admin_releases_early(connection: Connection) -> None:
    """An admin may release another owner's payment."""
    hold_id = place_hold(connection)

    early(connection, hold_id=hold_id, by=ADMIN, as_admin=True)

    assert state_of(connection, hold_id) is HoldState.RELEASED


@pytest.mark.parametrize("by", [PAYEE, "client-4", ADMIN])
def test_only_payer_and_admin_release_early(connection: Connection, by: str) -> None:
    """Not the payee, another client, or an admin without `as_admin`."""
    hold_id = place_hold(connection)
    before = books(connection)

    with pytest.raises(NotAllowed, match=f"hold {hold_id}: '{by}' may not .* '{PAYER}' or an admin"):
        early(connection, hold_id=hold_id, by=by)

    assert books(connection) == before


@pytest.mark.parametrize("as_admin", [False, True])
@pytest.mark.parametrize("state", [HoldState.FROZEN, HoldState.RELEASED, HoldState.REFUNDED])
def test_early_release_needs_a_buffered_hold(
    connection: Connection, state: HoldState, as_admin: bool
) -> None:
    """A frozen or settled hold is refused, also for an admin. The message says what is needed."""
    hold_id = place_hold(connection, state=state)
    before = books(connection)

    with pytest.raises(StateRefused) as refusal:
        early(connection, hold_id=hold_id, as_admin=as_admin)

    assert str(refusal.value) == f"hold {hold_id}: cannot release early from {state}; that needs BUFFERED"
    assert books(connection) == before


def test_early_release_of_a_job_takes_all_its_holds(connection: Connection) -> None:
    """A whole team is paid at once. Settled holds do not matter."""
    settled = place_hold(connection, state=HoldState.RELEASED)
    first = place_hold(connection, payee="worker-18", amount="10.00")
    second = place_hold(connection, payee="worker-19", amount="20.00", currency="USD")
    other_job = place_hold(connection, job="job-9")

    released = early(connection, job=JOB)

    assert (released.holds_released, released.amounts_minor) == (2, {"PHP": 1000, "USD": 2000})
    assert [state_of(connection, hold_id) for hold_id in (settled, first, second, other_job)] == [
        HoldState.RELEASED,
        HoldState.RELEASED,
        HoldState.RELEASED,
        HoldState.BUFFERED,
    ]


def test_early_release_of_a_job_is_all_or_nothing(connection: Connection) -> None:
    """One frozen hold, or another payer, refuses the whole job."""
    place_hold(connection)
    frozen = place_hold(connection, state=HoldState.FROZEN)
    of_another = place_hold(connection, job="job-9", payer="client-4")
    place_hold(connection, job="job-9", payer="client-4")
    before = books(connection)

    with pytest.raises(StateRefused, match=f"hold {frozen}: .* from FROZEN"):
        early(connection, job=JOB)
    with pytest.raises(NotAllowed, match=f"hold {of_another}: .* 'client-4' or an admin"):
        early(connection, job="job-9")

    assert books(connection) == before


@pytest.mark.parametrize("state", [HoldState.RELEASED, HoldState.REFUNDED])
def test_early_release_of_a_settled_job_is_refused(connection: Connection, state: HoldState) -> None:
    """The refusal names a hold and its state."""
    hold_id = place_hold(connection, state=state)

    with pytest.raises(StateRefused, match=f"hold {hold_id}: cannot release early from {state}"):
        early(connection, job=JOB)


def test_early_release_of_an_unknown_hold_or_job_is_refused(connection: Connection) -> None:
    """By name, also for an id out of range."""
    with pytest.raises(NotFound, match="hold 404: does not exist"):
        early(connection, hold_id=404)
    with pytest.raises(NotFound, match="job 'job-404': has no hold"):
        early(connection, job="job-404")
    with pytest.raises(NotFound, match=f"hold {2**63}: does not exist"):
        early(connection, hold_id=2**63)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, "^release early: needs a hold or a job, one of them$"),
        ({"hold_id": 1, "job": JOB}, "^release early: needs a hold or a job, one of them$"),
        ({"job": ""}, "^job: must not be empty"),
        ({"job": "x" * 201}, "^job: 201 characters"),
        ({"hold_id": 1, "by": ""}, "by: must not be empty"),
        ({"hold_id": 1, "by": "x" * 201}, "by: 201 characters"),
        ({"hold_id": 1, "reason": ""}, "reason: must not be empty"),
        ({"hold_id": 1, "reason": "x" * 2001}, "reason: 2001 characters"),
        ({"hold_id": 1, "reason": "a\x00b"}, "control character"),
        ({"hold_id": 1, "now": NOON.replace(tzinfo=None)}, "^now .* no time zone"),
    ],
)
def test_early_release_refuses_bad_input(
    connection: Connection, change: dict[str, Any], message: str
) -> None:
    """The hold stays."""
    place_hold(connection)
    before = books(connection)

    with pytest.raises(InvalidInput, match=message):
        early(connection, **change)

    assert books(connection) == before


def test_early_release_repeated_is_refused(connection: Connection) -> None:
    """Without a reference, the second finds the hold released and writes nothing."""
    hold_id = place_hold(connection)
    early(connection, hold_id=hold_id)
    before = books(connection)

    with pytest.raises(StateRefused, match="from RELEASED"):
        early(connection, hold_id=hold_id)

    assert books(connection) == before
