"""What was released is taken back: from the balance, and as a debt where that does not cover it."""

from typing import Any

import pytest
from sqlalchemy import Connection, select

from buffer_pipeline.audit.reconcile import reconcile
from buffer_pipeline.debts import ClawbackTo
from buffer_pipeline.errors import (
    InsufficientFunds,
    ReferenceConflict,
    StateRefused,
)
from buffer_pipeline.hold import HoldState
from buffer_pipeline.release import release_early
from buffer_pipeline.reports.holds import show_hold
from buffer_pipeline.tables import batch, debt, notification
from buffer_pipeline_tests.support.builders import (
    ADMIN,
    DAY_7,
    NOON,
    PAYEE,
    PAYER,
    WITH_A_FEE,
    Wallet,
    books,
    notifications_of,
    place_hold,
    state_of,
    wallet_of,
)
from buffer_pipeline_tests.support.debts import (
    lines,
    outstanding,
    owes,
    place_released,
    put_in,
    take_back,
    take_out,
)
from buffer_pipeline_tests.support.rules import shares_of


def test_a_balance_that_covers_it_pays_the_payer(connection: Connection) -> None:
    """The hold stays RELEASED, both balances are in the one transaction, and both owners are told."""
    hold_id = place_released(connection)

    done = take_back(connection, hold_id, "400.00")

    assert (done.hold_id, done.currency, done.amount_minor) == (hold_id, "PHP", 40_000)
    assert (done.taken_minor, done.debt_minor, done.debt_ids, done.replayed) == (40_000, 0, (), False)
    assert state_of(connection, hold_id) is HoldState.RELEASED
    assert lines(connection, "CLAWBACK") == [("CLAWBACK", "BALANCE", "BALANCE", 40_000, 40_000, 60_000)]
    assert wallet_of(connection, PAYEE) == Wallet(balance_minor=60_000)
    assert wallet_of(connection, PAYER) == Wallet(balance_minor=40_000)
    assert notifications_of(connection, PAYEE)[-1] == "EARNING_CLAWED_BACK"
    assert notifications_of(connection, PAYER) == ["PAYMENT_REFUNDED"]
    assert reconcile(connection) == []


def test_a_claw_back_says_who_and_why(connection: Connection) -> None:
    """Its batch has person, reason, reference and the named hold, and is its id."""
    hold_id = place_released(connection)

    done = take_back(connection, hold_id)

    made = connection.execute(select(batch).where(batch.c.batch_id == done.clawback_id)).mappings().one()
    assert (made["kind"], made["source"], made["reason"]) == ("CLAWBACK", ADMIN, "chargeback 17")
    assert (made["reference"], made["named_hold_id"], made["paid_to"]) == ("claw-back-1", hold_id, "PAYER")
    assert (made["recorded_at"], made["advancer_wallet_id"]) == (DAY_7, None)


def test_a_shown_claw_back_does_not_read_as_a_release(connection: Connection) -> None:
    """Who took it back and why is beside who released it, with where the money went."""
    hold_id = place_released(connection, spent="600.00")
    take_back(connection, hold_id, to=ClawbackTo.BANK)

    _, released, taken, advanced = show_hold(connection, hold_id=hold_id)["transactions"]

    assert (released["released_by"], "taken_back_by" in released) == (ADMIN, False)
    for line in (taken, advanced):
        assert (line["released_by"], line["refunded_by"], line["to"]) == (None, None, "bank")
        assert (line["taken_back_by"], line["claw_back_reason"]) == (ADMIN, "chargeback 17")


def test_what_the_balance_does_not_cover_is_owed_to_the_payer(connection: Connection) -> None:
    """The payer gets the covered part now. The payee is told of both."""
    hold_id = place_released(connection, spent="600.00")

    done = take_back(connection, hold_id)

    opened = connection.execute(select(debt)).mappings().one()
    told = connection.execute(select(notification).order_by(notification.c.notification_id.desc())).mappings()
    assert (done.taken_minor, done.debt_minor, done.debt_ids) == (40_000, 60_000, (opened["debt_id"],))
    assert (opened["clawback_id"], opened["hold_id"]) == (done.clawback_id, hold_id)
    assert (opened["amount_minor"], opened["outstanding_minor"], opened["opened_at"]) == (
        60_000,
        60_000,
        DAY_7,
    )
    assert (wallet_of(connection, PAYEE), owes(connection)) == (Wallet(), 60_000)
    assert wallet_of(connection, PAYER) == Wallet(balance_minor=40_000)
    assert [
        (each["type"], each["owner"], each["amount_minor"], each["left_minor"], each["clawback_id"])
        for each in told
    ][:2] == [
        ("PAYMENT_REFUNDED", PAYER, 40_000, None, None),
        ("EARNING_CLAWED_BACK", PAYEE, 100_000, 60_000, done.clawback_id),
    ]
    assert reconcile(connection) == []


def test_an_empty_balance_leaves_only_a_debt(connection: Connection) -> None:
    """No money moves, and nobody is told that they got any."""
    hold_id = place_released(connection, spent="1000.00")

    done = take_back(connection, hold_id)

    assert (done.taken_minor, done.debt_minor) == (0, 100_000)
    assert lines(connection, "CLAWBACK", "ADVANCE") == []
    assert notifications_of(connection, PAYER) == []
    assert reconcile(connection) == []


def test_a_bank_has_taken_all_of_it(connection: Connection) -> None:
    """What the balance does not cover leaves the books too, and is receivable from the payee."""
    hold_id = place_released(connection, spent="600.00")

    done = take_back(connection, hold_id, to=ClawbackTo.BANK)

    assert (done.taken_minor, done.debt_minor) == (40_000, 60_000)
    assert lines(connection, "CLAWBACK", "ADVANCE") == [
        ("CLAWBACK", "BALANCE", "EXTERNAL", 40_000, 0, None),
        ("ADVANCE", "RECEIVABLE", "EXTERNAL", 60_000, None, None),
    ]
    assert connection.scalars(select(debt.c.creditor_wallet_id)).one() is None
    assert wallet_of(connection, PAYER) == Wallet()
    assert notifications_of(connection, PAYER) == []
    assert reconcile(connection) == []


@pytest.mark.parametrize(
    ("to", "account", "payer_minor", "balances"),
    [
        (ClawbackTo.PAYER, "BALANCE", 100_000, (100_000, 20_000)),
        (ClawbackTo.BANK, "EXTERNAL", 0, (20_000, None)),
    ],
)
def test_somebody_else_advances_what_is_not_covered(
    connection: Connection,
    to: ClawbackTo,
    account: str,
    payer_minor: int,
    balances: tuple[int, int | None],
) -> None:
    """That owner's balance pays now, and the payee owes it to them."""
    hold_id = place_released(connection, spent="600.00")
    put_in(connection, "800.00", owner="shop")

    take_back(connection, hold_id, to=to, advanced_by="shop")

    assert lines(connection, "ADVANCE") == [("ADVANCE", "BALANCE", account, 60_000, *balances)]
    assert wallet_of(connection, "shop") == Wallet(balance_minor=20_000)
    assert wallet_of(connection, PAYER) == Wallet(balance_minor=payer_minor)
    assert owes(connection) == 60_000
    assert reconcile(connection) == []


def test_shares_give_in_proportion(connection: Connection) -> None:
    """By the id of an earning's own hold; what a share has not released does not count."""
    first = place_released(connection, shares=WITH_A_FEE)
    put_in(connection, "1.00", owner="platform")

    done = take_back(connection, first, "450.00")

    # 780.00 of the payee and a fee of 120.00 are released, and the reserve of 100.00 is not.
    assert done.taken_minor == 45_000
    assert wallet_of(connection, PAYEE) == Wallet(balance_minor=39_000, pending_earnings_minor=10_000)
    assert wallet_of(connection, "platform") == Wallet(balance_minor=6_100)
    assert wallet_of(connection, PAYER) == Wallet(balance_minor=45_000)
    assert notifications_of(connection, "platform") == []
    assert reconcile(connection) == []


def test_a_share_gives_alone_by_its_own_id(connection: Connection) -> None:
    """The other shares keep theirs."""
    first = place_released(connection, shares=WITH_A_FEE)

    take_back(connection, shares_of(connection, first)["FEE"], "100.00")

    assert wallet_of(connection, "platform") == Wallet(balance_minor=2_000)
    assert wallet_of(connection, PAYEE).balance_minor == 78_000
    assert notifications_of(connection, "platform")[-1] == "EARNING_CLAWED_BACK"
    assert reconcile(connection) == []


def test_an_earning_is_named_by_its_reference(connection: Connection) -> None:
    """It means the earning's own hold, so all shares."""
    first = place_released(connection, shares=WITH_A_FEE, reference="invoice-9")

    done = take_back(connection, None, "900.00", earning_reference="invoice-9")  # type: ignore[arg-type]

    assert (done.hold_id, done.amount_minor) == (first, 90_000)
    assert wallet_of(connection, "platform") == Wallet()
    assert reconcile(connection) == []


def test_a_part_that_was_released_early_can_be_taken_back(connection: Connection) -> None:
    """The rest of the hold keeps waiting, and only the part counts."""
    hold_id = place_hold(connection)
    release_early(
        connection, hold_id=hold_id, amount="300.00", by=PAYER, reason="well done", reference="p", now=NOON
    )

    with pytest.raises(
        InsufficientFunds, match=r"300\.01 PHP is above the 300\.00 that is left to take back"
    ):
        take_back(connection, hold_id, "300.01")
    done = take_back(connection, hold_id, "300.00")

    assert done.taken_minor == 30_000
    assert state_of(connection, hold_id) is HoldState.BUFFERED
    assert wallet_of(connection, PAYEE) == Wallet(pending_earnings_minor=70_000)
    assert reconcile(connection) == []


def test_no_more_than_was_earned_is_taken_back(connection: Connection) -> None:
    """A debt counts as taken. The refusal says what is left, and nothing is written."""
    hold_id = place_released(connection, spent="900.00")
    take_back(connection, hold_id, "700.00")
    before = books(connection)

    with pytest.raises(
        InsufficientFunds, match=r"300\.01 PHP is above the 300\.00 that is left to take back"
    ):
        take_back(connection, hold_id, "300.01", reference="claw-back-2")
    assert books(connection) == before
    take_back(connection, hold_id, "300.00", reference="claw-back-2")
    with pytest.raises(InsufficientFunds, match=r"nothing is left to take back; 1000\.00 PHP were taken"):
        take_back(connection, hold_id, "0.01", reference="claw-back-3")
    assert outstanding(connection) == [60_000, 30_000]
    assert reconcile(connection) == []


@pytest.mark.parametrize("state", [HoldState.BUFFERED, HoldState.FROZEN, HoldState.REFUNDED])
def test_nothing_is_taken_back_before_it_was_released(connection: Connection, state: HoldState) -> None:
    """A hold that waits can be frozen and refunded instead."""
    hold_id = place_hold(connection, state=state)
    before = books(connection)

    with pytest.raises(StateRefused, match=f"cannot take back from {state}; that needs RELEASED"):
        take_back(connection, hold_id)

    assert books(connection) == before


def test_a_repeated_call_takes_once(connection: Connection) -> None:
    """The first result is returned, whatever the balance is now."""
    hold_id = place_released(connection, spent="600.00")
    first = take_back(connection, hold_id)
    put_in(connection, "100.00")
    before = books(connection)

    again = take_back(connection, hold_id)

    assert again.replayed
    assert (again.clawback_id, again.taken_minor, again.debt_minor, again.debt_ids) == (
        first.clawback_id,
        40_000,
        60_000,
        first.debt_ids,
    )
    assert books(connection) == before


@pytest.mark.parametrize(
    "changes",
    [
        {"amount": "999.99"},
        {"to": ClawbackTo.BANK},
        {"by": "admin-2"},
        {"reason": "another"},
        {"advanced_by": "shop"},
    ],
)
def test_a_reference_is_used_once(connection: Connection, changes: dict[str, str]) -> None:
    """With other content it is refused, and the refusal names what it was used for."""
    hold_id = place_released(connection)
    take_back(connection, hold_id)

    with pytest.raises(ReferenceConflict, match=r"a claw-back of 1000.00 PHP of hold \d+ by 'admin-1'"):
        take_back(connection, hold_id, **changes)


def test_references_of_early_releases_are_the_same_names(connection: Connection) -> None:
    """Each verb refuses what the other has used."""
    hold_id = place_hold(connection)
    release: dict[str, Any] = {
        "hold_id": hold_id,
        "by": ADMIN,
        "as_admin": True,
        "reason": "chargeback 17",
        "now": NOON,
    }
    release_early(connection, amount="500.00", reference="key-1", **release)
    take_back(connection, hold_id, "100.00", reference="key-2")

    with pytest.raises(ReferenceConflict, match="already used for an early release of hold"):
        take_back(connection, hold_id, "100.00", reference="key-1")
    with pytest.raises(ReferenceConflict, match="already used for the claw-back"):
        release_early(connection, amount="100.00", reference="key-2", **release)


def test_shares_of_one_owner_are_covered_in_their_order(connection: Connection) -> None:
    """The payee's own share first, then the reserve; each gets the debt of its rest."""
    first = place_released(connection, shares=WITH_A_FEE)
    reserve = shares_of(connection, first)["RESERVE"]
    release_early(connection, hold_id=reserve, by=ADMIN, as_admin=True, reason="fine", now=NOON)
    take_out(connection, "800.00")

    done = take_back(connection, first)

    owed = connection.execute(select(debt.c.hold_id, debt.c.amount_minor).order_by(debt.c.debt_id)).all()
    assert (done.taken_minor, done.debt_minor) == (20_000, 80_000)
    assert [tuple(row) for row in owed] == [(first, 70_000), (reserve, 10_000)]
    assert notifications_of(connection, PAYEE).count("EARNING_CLAWED_BACK") == 1
    assert reconcile(connection) == []
