"""A fee that its rule keeps: an approved backjob and a refund without one take nothing from it."""

import pytest
from sqlalchemy import Connection

from buffer_pipeline.audit.reconcile import reconcile
from buffer_pipeline.backjob import approve_backjob
from buffer_pipeline.errors import InsufficientFunds, ReferenceConflict, RuleRefused
from buffer_pipeline.hold import BackjobState, HoldState
from buffer_pipeline.shares import Share, ShareKind
from buffer_pipeline_tests.support.backjobs import decide, request
from buffer_pipeline_tests.support.builders import (
    DAY_7,
    PAYER,
    WITH_A_FEE,
    Wallet,
    books,
    hold_row,
    open_freezes,
    place_hold,
    release_date_of,
    state_of,
    wallet_of,
)
from buffer_pipeline_tests.support.refunds import freeze_for_risk, refund, refunded
from buffer_pipeline_tests.support.rules import FEE, RESERVE, SELLER, add, shares_of


def place_kept(connection: Connection, *, on_refund: str = "keep", payee: str = "worker-17") -> list[int]:
    """Hold 1000.00 by rule 'seller': 792.00 for the payee, a fee of 120.00, and a reserve of 88.00."""
    add(connection, fee_on_refund=on_refund, **FEE, **RESERVE)
    first = place_hold(connection, payee=payee, rule=SELLER)
    shares = shares_of(connection, first)
    return [shares["PAYEE"], shares["FEE"], shares["RESERVE"]]


# ---- backjobs


def test_an_approval_leaves_a_kept_fee_in_the_buffer(connection: Connection) -> None:
    """The payer gets 880.00, and the fee returns to the buffer with its date unchanged."""
    first, fee, reserve = place_kept(connection)
    opened = request(connection)

    done = decide(connection, approve_backjob, opened.backjob_id)

    assert done.hold_ids == (first, fee, reserve)
    assert refunded(connection, first, fee, reserve) == [79_200, 0, 8_800]
    assert wallet_of(connection, PAYER) == Wallet(balance_minor=88_000)
    assert wallet_of(connection, "shop") == Wallet(pending_earnings_minor=12_000)
    assert (state_of(connection, fee), release_date_of(connection, fee)) == (HoldState.BUFFERED, DAY_7)
    assert open_freezes(connection, fee) == []
    assert reconcile(connection) == []


def test_a_part_of_an_approval_is_split_without_the_kept_fee(connection: Connection) -> None:
    """100.00 is taken from the payee's share and the reserve in proportion."""
    shares = place_kept(connection)
    opened = request(connection)

    decide(connection, approve_backjob, opened.backjob_id, amount="100.00")

    assert refunded(connection, *shares) == [9_000, 0, 1_000]


def test_a_fee_that_is_returned_is_refunded(connection: Connection) -> None:
    """With `return`, an approval takes the fee as well."""
    shares = place_kept(connection, on_refund="return")
    opened = request(connection)

    decide(connection, approve_backjob, opened.backjob_id)

    assert refunded(connection, *shares) == [79_200, 12_000, 8_800]


def test_a_fee_without_a_rule_and_a_tax_are_refunded(connection: Connection) -> None:
    """Only a FEE share whose own rule keeps it is left out, also if the caller gave the shares."""
    add(connection, fee_on_refund="keep", **FEE)
    first = place_hold(
        connection,
        rule=SELLER,
        shares=(
            Share(kind=ShareKind.PAYEE),
            Share(kind=ShareKind.TAX, owner="treasury", percent=2),
            Share(kind=ShareKind.FEE, owner="platform", percent=10),
        ),
    )
    other = place_hold(connection, payee="worker-2", shares=WITH_A_FEE)
    opened = request(connection)

    decide(connection, approve_backjob, opened.backjob_id)

    kept = shares_of(connection, first)
    assert refunded(connection, kept["PAYEE"], kept["TAX"], kept["FEE"]) == [88_000, 2_000, 0]
    assert refunded(connection, shares_of(connection, other)["FEE"]) == [12_000]


def test_an_amount_above_all_but_the_kept_fee_is_refused(connection: Connection) -> None:
    """The refusal says what can be refunded, and which fee is kept by which rule."""
    _, fee, _ = place_kept(connection)
    opened = request(connection)
    before = books(connection)

    with pytest.raises(InsufficientFunds) as refusal:
        decide(connection, approve_backjob, opened.backjob_id, amount="880.01")

    assert str(refusal.value) == (
        f"backjob {opened.backjob_id}: 880.01 PHP is above the 880.00 that its holds hold;"
        f" the fee of 120.00 PHP, hold {fee}, is kept by rule 'seller' version 1"
    )
    assert books(connection) == before
    decide(connection, approve_backjob, opened.backjob_id, amount="880.00")
    assert wallet_of(connection, PAYER) == Wallet(balance_minor=88_000)


def test_a_refusal_names_the_first_kept_fees(connection: Connection) -> None:
    """Of five it names three, and says how many more there are."""
    fees = [place_kept(connection, payee=f"worker-{number}")[1] for number in range(5)]
    opened = request(connection)

    with pytest.raises(InsufficientFunds) as refusal:
        decide(connection, approve_backjob, opened.backjob_id, amount="4400.01")

    assert [str(fee) in str(refusal.value) for fee in fees] == [True, True, True, False, False]
    assert str(refusal.value).endswith("; and 2 more fees are kept")


def test_an_approval_of_a_kept_fee_only_is_refused(connection: Connection) -> None:
    """The refusal names the hold and the rule; with another hold beside it, the approval takes that one."""
    first, fee, _ = place_kept(connection)
    opened = request(connection)
    before = books(connection)

    with pytest.raises(RuleRefused) as refusal:
        decide(connection, approve_backjob, opened.backjob_id, hold_ids=[fee])

    assert str(refusal.value) == (
        f"backjob {opened.backjob_id}: nothing to refund;"
        f" the fee of 120.00 PHP, hold {fee}, is kept by rule 'seller' version 1"
    )
    named = refusal.value
    assert (named.hold_id, named.backjob_id, named.rule) == (fee, opened.backjob_id, "seller")
    assert books(connection) == before
    decide(connection, approve_backjob, opened.backjob_id, hold_ids=[first, fee])
    assert refunded(connection, first, fee) == [79_200, 0]


@pytest.mark.parametrize("named", ["all", "the payee's and the fee"])
def test_an_approval_without_an_amount_is_repeated_as_all_but_the_kept_fees(
    connection: Connection, named: str
) -> None:
    """It is a replay, although the fee was not refunded; also once the fee was released."""
    first, fee, _ = place_kept(connection)
    opened = request(connection)
    said = {"reference": "decision-1", **({} if named == "all" else {"hold_ids": [first, fee]})}
    decide(connection, approve_backjob, opened.backjob_id, **said)

    again = decide(connection, approve_backjob, opened.backjob_id, **said)

    assert (again.replayed, again.state) == (True, BackjobState.APPROVED)


def test_an_approval_of_a_part_is_not_repeated_as_all_but_the_kept_fees(connection: Connection) -> None:
    """What could have been refunded and was not is another content."""
    place_kept(connection)
    opened = request(connection)
    decide(connection, approve_backjob, opened.backjob_id, reference="decision-1", amount="879.99")

    with pytest.raises(ReferenceConflict):
        decide(connection, approve_backjob, opened.backjob_id, reference="decision-1")


# ---- refunds without a backjob


def test_a_refund_of_an_earning_leaves_a_kept_fee_frozen(connection: Connection) -> None:
    """All but the fee is refunded; the fee's freeze is open, and closing it returns the fee to the buffer."""
    first, fee, reserve = place_kept(connection)
    freeze_for_risk(connection, first)

    done = refund(connection, first)

    assert (done.amount_minor, done.left_minor, done.state) == (88_000, 12_000, HoldState.REFUNDED)
    assert done.hold_ids == (first, reserve)
    assert (state_of(connection, fee), hold_row(connection, fee)["refunded_minor"]) == (HoldState.FROZEN, 0)
    assert open_freezes(connection, fee) == ["RISK"]
    assert reconcile(connection) == []


def test_a_refund_above_all_but_the_kept_fee_is_refused(connection: Connection) -> None:
    """The refusal says which fee is kept by which rule."""
    first, fee, _ = place_kept(connection)
    freeze_for_risk(connection, first)

    with pytest.raises(InsufficientFunds) as refusal:
        refund(connection, first, amount="880.01")

    assert str(refusal.value) == (
        f"hold {first}: 880.01 PHP is above the 880.00 that its frozen shares hold;"
        f" the fee of 120.00 PHP, hold {fee}, is kept by rule 'seller' version 1"
    )


def test_a_kept_fee_is_not_refunded_by_its_own_id(connection: Connection) -> None:
    """The refusal names the hold and the rule, and nothing is written."""
    first, fee, _ = place_kept(connection)
    freeze_for_risk(connection, first)
    before = books(connection)

    with pytest.raises(RuleRefused) as refusal:
        refund(connection, fee)

    assert str(refusal.value) == (
        f"hold {fee}: nothing to refund;"
        f" the fee of 120.00 PHP, hold {fee}, is kept by rule 'seller' version 1"
    )
    assert books(connection) == before


def test_a_refund_of_an_earning_of_which_only_a_kept_fee_is_left_is_refused(connection: Connection) -> None:
    """After everything else was refunded, nothing can be."""
    first, _, _ = place_kept(connection)
    freeze_for_risk(connection, first)
    refund(connection, first)

    with pytest.raises(RuleRefused, match="nothing to refund"):
        refund(connection, first, reference="refund-2")
