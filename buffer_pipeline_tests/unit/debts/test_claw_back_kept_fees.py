"""A claw-back of an earning of which a fee is kept or a share is still held."""

import pytest
from sqlalchemy import Connection

from buffer_pipeline.audit.reconcile import reconcile
from buffer_pipeline.debts import ClawbackTo
from buffer_pipeline.errors import (
    InsufficientFunds,
    RuleRefused,
)
from buffer_pipeline.freeze import freeze_hold
from buffer_pipeline.hold import FreezeKind
from buffer_pipeline.release import release_early
from buffer_pipeline_tests.support.builders import (
    ADMIN,
    NOON,
    PAYEE,
    PAYER,
    Wallet,
    wallet_of,
)
from buffer_pipeline_tests.support.debts import (
    place_released,
    take_back,
)
from buffer_pipeline_tests.support.rules import FEE, RESERVE, SELLER, add, shares_of


def test_a_kept_fee_gives_nothing(connection: Connection) -> None:
    """It is as with a refund: the rule keeps the fee."""
    add(connection, fee_on_refund="keep", **FEE, **RESERVE)
    first = place_released(connection, rule=SELLER)
    fee = shares_of(connection, first)["FEE"]

    take_back(connection, first, "792.00")

    assert wallet_of(connection, "shop") == Wallet(balance_minor=12_000)
    with pytest.raises(RuleRefused, match=r"hold \d+: nothing to refund; the fee of 120.00 PHP"):
        take_back(connection, fee, "1.00", reference="claw-back-2")
    with pytest.raises(RuleRefused):
        take_back(connection, first, "1.00", reference="claw-back-2")
    assert reconcile(connection) == []


def test_a_bank_takes_a_kept_fee_last(connection: Connection) -> None:
    """The bank has taken the whole payment. As long as the others cover it, the fee is kept."""
    add(connection, fee_on_refund="keep", **FEE)
    first = place_released(connection, rule=SELLER)
    fee = shares_of(connection, first)["FEE"]

    take_back(connection, first, "380.00", to=ClawbackTo.BANK)
    kept = wallet_of(connection, "shop")
    rest = take_back(connection, first, "620.00", to=ClawbackTo.BANK, reference="claw-back-2")

    assert kept == Wallet(balance_minor=12_000)
    assert (rest.taken_minor, rest.debt_minor) == (62_000, 0)
    assert (wallet_of(connection, "shop"), wallet_of(connection, PAYEE)) == (Wallet(), Wallet())
    assert wallet_of(connection, PAYER) == Wallet()
    with pytest.raises(InsufficientFunds, match="nothing is left to take back"):
        take_back(connection, fee, "0.01", to=ClawbackTo.BANK, reference="claw-back-3")
    assert reconcile(connection) == []


def test_a_bank_takes_a_kept_fee_by_its_own_id(connection: Connection) -> None:
    """Then it is the only one to give."""
    add(connection, fee_on_refund="keep", **FEE)
    first = place_released(connection, rule=SELLER)

    done = take_back(connection, shares_of(connection, first)["FEE"], "120.00", to=ClawbackTo.BANK)

    assert done.taken_minor == 12_000
    assert reconcile(connection) == []


def test_a_refusal_names_what_is_kept_and_what_is_held(connection: Connection) -> None:
    """With the amounts, and with what to do about the share that waits. Then all of it can be booked."""
    add(connection, fee_on_refund="keep", **FEE, **RESERVE)
    first = place_released(connection, rule=SELLER)
    reserve = shares_of(connection, first)["RESERVE"]
    left = r"1000\.00 PHP is above the {} that is left to take back of its shares"
    held = f"; 88.00 PHP is still held in hold {reserve}, BUFFERED: "

    with pytest.raises(InsufficientFunds, match=left.format("792.00")) as for_the_payer:
        take_back(connection, first)
    with pytest.raises(InsufficientFunds, match=left.format("912.00")) as for_the_bank:
        take_back(connection, first, to=ClawbackTo.BANK)

    said = str(for_the_payer.value)
    assert f"is kept by rule '{SELLER}' version 1{held}freeze and refund what is held" in said
    assert for_the_payer.value.allowed == ("refund_hold",)
    assert f"of its shares{held}release it early as an admin, and then take back all of it" in str(
        for_the_bank.value
    )
    assert for_the_bank.value.allowed == ("release_early",)
    release_early(connection, hold_id=reserve, by=ADMIN, as_admin=True, reason="chargeback", now=NOON)
    assert take_back(connection, first, to=ClawbackTo.BANK).taken_minor == 100_000
    assert wallet_of(connection, PAYER) == Wallet()
    assert reconcile(connection) == []


def test_what_is_held_is_named_if_all_else_is_taken(connection: Connection) -> None:
    """Nothing is left of what was released, and a frozen share waits."""
    add(connection, **FEE, **RESERVE)
    first = place_released(connection, rule=SELLER)
    reserve = shares_of(connection, first)["RESERVE"]
    freeze_hold(connection, hold_id=reserve, kind=FreezeKind.ADMIN, by=ADMIN, reason="chargeback", now=NOON)
    take_back(connection, first, "912.00", to=ClawbackTo.BANK)

    with pytest.raises(
        InsufficientFunds,
        match=r"nothing is left to take back; 912\.00 PHP were taken before; 88\.00 PHP is still held in"
        rf" hold {reserve}, FROZEN: unfreeze it, release it early as an admin",
    ):
        take_back(connection, first, "88.00", to=ClawbackTo.BANK, reference="claw-back-2")
