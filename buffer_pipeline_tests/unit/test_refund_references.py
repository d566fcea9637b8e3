"""A replayed refund moves nothing; other content is refused."""

from typing import Any

import pytest
from sqlalchemy import Connection, Engine

from buffer_pipeline.audit.reconcile import reconcile
from buffer_pipeline.errors import ReferenceConflict
from buffer_pipeline.freeze import unfreeze_hold
from buffer_pipeline.hold import HoldState
from buffer_pipeline.release import release_matured
from buffer_pipeline.wallet import Movement, deposit
from buffer_pipeline_tests.support.builders import (
    ADMIN,
    DAY_7,
    NOON,
    PAYER,
    Wallet,
    books,
    one_after_the_other,
    open_freezes,
    place_hold,
    state_of,
    wallet_of,
)
from buffer_pipeline_tests.support.refunds import freeze_for_risk, refund


@pytest.mark.parametrize("amount", [None, "250.00"])
def test_refund_is_replayed(connection: Connection, amount: str | None) -> None:
    """It moves nothing and returns the hold's present state."""
    hold_id = place_hold(connection, state=HoldState.FROZEN)
    done = refund(connection, hold_id, amount=amount)
    before = books(connection)

    again = refund(connection, hold_id, amount=amount, now=DAY_7)

    assert (again.transaction_id, again.amount_minor) == (done.transaction_id, done.amount_minor)
    assert (again.left_minor, again.state, again.replayed) == (done.left_minor, done.state, True)
    assert books(connection) == before


def test_replayed_part_returns_what_is_left_now(connection: Connection) -> None:
    """Also if another part settled the hold meanwhile."""
    hold_id = place_hold(connection, state=HoldState.FROZEN)
    refund(connection, hold_id, amount="250.00")
    refund(connection, hold_id, reference="refund-2")

    again = refund(connection, hold_id, amount="250.00")

    assert (again.amount_minor, again.left_minor) == (25_000, 0)
    assert (again.hold_id, again.state, again.replayed) == (hold_id, HoldState.REFUNDED, True)


def test_replayed_part_after_a_release_has_nothing_left(connection: Connection) -> None:
    """The rest is no longer held."""
    hold_id = place_hold(connection)
    frozen = freeze_for_risk(connection, hold_id)
    refund(connection, hold_id, amount="250.00")
    unfreeze_hold(connection, freeze_id=frozen.freeze_id, by=ADMIN, reason="fine", now=NOON)
    release_matured(connection, now=DAY_7, batch_limit=10)

    again = refund(connection, hold_id, amount="250.00")

    assert (again.left_minor, again.state, again.replayed) == (0, HoldState.RELEASED, True)


@pytest.mark.parametrize(
    "change", [{"amount": "250.01"}, {"by": "admin-2"}, {"reason": "another one"}, {"hold": "other"}]
)
def test_another_refund_with_the_reference_is_refused(connection: Connection, change: dict[str, Any]) -> None:
    """The refusal names what the reference was used for."""
    hold_id = place_hold(connection, state=HoldState.FROZEN)
    other = place_hold(connection, state=HoldState.FROZEN)
    done = refund(connection, hold_id, amount="250.00")
    before = books(connection)
    arguments = {"amount": "250.00", **change}

    with pytest.raises(ReferenceConflict) as refusal:
        refund(connection, other if arguments.pop("hold", None) else hold_id, **arguments)

    assert str(refusal.value) == (
        f"reference 'refund-1': already used for transaction {done.transaction_id},"
        f" a REFUND of 250.00 PHP of hold {hold_id}"
    )
    assert (refusal.value.reference, refusal.value.hold_id) == ("refund-1", hold_id)
    assert books(connection) == before


def move(connection: Connection) -> Movement:
    """Deposit 5.00 PHP with the refund's reference."""
    return deposit(connection, owner=PAYER, amount="5.00", currency="PHP", reference="refund-1", now=NOON)


def test_deposits_and_refunds_share_their_references(connection: Connection) -> None:
    """Each refuses the other's."""
    hold_id = place_hold(connection, state=HoldState.FROZEN)
    move(connection)
    before = books(connection)

    with pytest.raises(ReferenceConflict, match=r"a DEPOSIT of 5\.00 PHP$"):
        refund(connection, hold_id)

    assert books(connection) == before
    refund(connection, hold_id, reference="refund-2")
    with pytest.raises(ReferenceConflict) as refusal:
        deposit(connection, owner=PAYER, amount="5.00", currency="PHP", reference="refund-2", now=NOON)
    assert refusal.value.reference == "refund-2"


def test_a_refund_after_a_deposit_with_its_reference_is_refused(engine: Engine) -> None:
    """It waits, then undoes what it had written. Its transaction stays usable."""
    with engine.begin() as connection:
        hold_id = place_hold(connection, state=HoldState.FROZEN)

    def refund_and_go_on(connection: Connection) -> HoldState:
        with pytest.raises(ReferenceConflict, match="a DEPOSIT of"):
            refund(connection, hold_id)
        return state_of(connection, hold_id)

    # Of another wallet, for whose lock the refund does not wait.
    _, state = one_after_the_other(
        engine,
        lambda connection: deposit(
            connection, owner="client-9", amount="5.00", currency="PHP", reference="refund-1", now=NOON
        ),
        refund_and_go_on,
    )

    assert state is HoldState.FROZEN
    with engine.connect() as connection:
        assert wallet_of(connection, PAYER) == Wallet()
        assert open_freezes(connection, hold_id) == ["ADMIN"]
        assert reconcile(connection) == []


def test_deposit_that_waits_for_a_refund_with_its_reference_is_refused(engine: Engine) -> None:
    """The deposit finds the reference used."""
    with engine.begin() as connection:
        hold_id = place_hold(connection, state=HoldState.FROZEN)

    done, refusal = one_after_the_other(engine, lambda connection: refund(connection, hold_id), move)

    assert isinstance(refusal, ReferenceConflict)
    with engine.connect() as connection:
        assert wallet_of(connection, PAYER) == Wallet(balance_minor=done.amount_minor)


def test_a_refund_repeated_without_an_amount_means_all_of_it(connection: Connection) -> None:
    """For a partial refund it is refused; a whole one is replayed."""
    hold_id = place_hold(connection, state=HoldState.FROZEN)
    refund(connection, hold_id, amount="1.00")
    with pytest.raises(ReferenceConflict, match=r"a REFUND of 1\.00 PHP of hold"):
        refund(connection, hold_id)

    refund(connection, hold_id, reference="refund-2")

    assert refund(connection, hold_id, reference="refund-2").replayed
    with pytest.raises(ReferenceConflict):
        refund(connection, hold_id)
