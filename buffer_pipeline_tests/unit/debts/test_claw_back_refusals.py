"""Claw-backs that are refused."""

from datetime import timedelta

import pytest
from sqlalchemy import Connection

from buffer_pipeline.audit.reconcile import reconcile
from buffer_pipeline.errors import (
    InsufficientFunds,
    InvalidInput,
    NotFound,
    WalletFull,
)
from buffer_pipeline_tests.support.builders import (
    NOON,
    PAYEE,
    PAYER,
    WITH_A_FEE,
    Wallet,
    books,
    wallet_of,
)
from buffer_pipeline_tests.support.debts import (
    outstanding,
    place_released,
    put_in,
    take_back,
)
from buffer_pipeline_tests.support.full_wallets import fill_wallet


def test_an_advance_must_be_covered(connection: Connection) -> None:
    """By the balance that is left after the advancer's own share; nothing is written."""
    first = place_released(connection, shares=WITH_A_FEE, spent="780.00")
    put_in(connection, "20.00", owner="platform")
    before = books(connection)

    # 600.00 of the payee would be advanced, and the fee gives 120.00 - 20.00.
    with pytest.raises(InsufficientFunds, match=r"'platform': cannot advance 780\.00 PHP for hold \d+"):
        take_back(connection, first, "900.00", advanced_by="platform")
    assert books(connection) == before
    put_in(connection, "760.00", owner="platform")
    take_back(connection, first, "900.00", advanced_by="platform")
    assert wallet_of(connection, "platform") == Wallet()
    assert wallet_of(connection, PAYER) == Wallet(balance_minor=90_000)
    assert outstanding(connection) == [78_000]
    assert reconcile(connection) == []


@pytest.mark.parametrize(("owner", "side"), [(PAYEE, "payee"), (PAYER, "payer")])
def test_neither_side_advances(connection: Connection, owner: str, side: str) -> None:
    """It has to be somebody else."""
    hold_id = place_released(connection)

    with pytest.raises(InvalidInput, match=f"advanced_by '{owner}': is the {side} of hold {hold_id}"):
        take_back(connection, hold_id, advanced_by=owner)


def test_unknown_things_are_refused(connection: Connection) -> None:
    """A hold, an earning, and an advancer without a wallet."""
    hold_id = place_released(connection)

    with pytest.raises(NotFound, match="hold 404: does not exist"):
        take_back(connection, 404)
    with pytest.raises(NotFound, match="earning 'nowhere': does not exist"):
        take_back(connection, None, earning_reference="nowhere")  # type: ignore[arg-type]
    with pytest.raises(NotFound, match="wallet of 'nobody' in PHP: does not exist"):
        take_back(connection, hold_id, advanced_by="nobody")
    with pytest.raises(InvalidInput, match="needs a hold or the reference of an earning"):
        take_back(connection, hold_id, earning_reference="x")
    with pytest.raises(InvalidInput, match="to 'somebody': is not PAYER or BANK"):
        take_back(connection, hold_id, to="somebody")
    with pytest.raises(InvalidInput, match=f"lies before hold {hold_id} was released"):
        take_back(connection, hold_id, now=NOON - timedelta(minutes=2))


def test_a_full_wallet_of_the_payer_is_refused(connection: Connection) -> None:
    """The caller's transaction can go on."""
    hold_id = place_released(connection)
    fill_wallet(connection, PAYER, capacity_minor=99_999)
    before = books(connection)

    with pytest.raises(WalletFull, match=f"hold {hold_id}: its payer's wallet"):
        take_back(connection, hold_id)

    assert books(connection) == before
