"""Releases pay the debts of the payee first, in the same transaction."""

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, select, text

from buffer_pipeline.audit.reconcile import reconcile, reconcile_run
from buffer_pipeline.debts import ClawbackTo
from buffer_pipeline.errors import PaymentBufferError, WalletFull
from buffer_pipeline.hold import HoldState
from buffer_pipeline.release import ReleasePosition, ReleaseRange, Shard, release_early, release_matured
from buffer_pipeline.release.matured import release_range
from buffer_pipeline.release_run.run import release_all_due
from buffer_pipeline.reports.audit_trail import audit_trail
from buffer_pipeline.tables import debt, notification
from buffer_pipeline_tests.support.builders import (
    ADMIN,
    DAY_7,
    NOON,
    PAYEE,
    PAYER,
    WITH_A_FEE,
    Wallet,
    all_at_once,
    notifications_of,
    one_after_the_other,
    place_hold,
    state_of,
    wallet_of,
)
from buffer_pipeline_tests.support.debts import (
    forgive,
    lines,
    outstanding,
    owes,
    place_debt,
    place_released,
    put_in,
    recover_now,
    take_back,
    take_out,
)
from buffer_pipeline_tests.support.full_wallets import fill_wallet
from buffer_pipeline_tests.support.rules import SELLER, add

RUN = "run-1"
EVERYTHING = ReleaseRange(after=ReleasePosition(), through=ReleasePosition.end(DAY_7), shard=Shard())


def release_all(connection: Connection) -> Any:
    """Release what is due on day 7, on the skip-locked path."""
    return release_matured(connection, now=DAY_7, batch_limit=100, source=RUN)


def release_whole_range(connection: Connection) -> Any:
    """Release what is due on day 7, on the fast path."""
    return release_range(connection, hold_range=EVERYTHING, now=DAY_7, due_by=DAY_7, source=RUN)


WAYS = pytest.mark.parametrize("release", [release_all, release_whole_range])


def proved(connection: Connection) -> list[Any]:
    """Return what all invariants find, of the books and of the run."""
    return [*reconcile(connection), *reconcile_run(connection, source=RUN, since=DAY_7)]


@WAYS
def test_a_release_pays_the_debt_first(connection: Connection, release: Any) -> None:
    """The payee gets the rest, and the payer what they wait for; both are told."""
    place_debt(connection)
    hold_id = place_hold(connection, amount="700.00")

    batch = release(connection)

    assert (batch.holds_released, batch.amounts_minor) == (1, {"PHP": 70_000})
    assert batch.recovered_minor == {"PHP": 60_000}
    assert state_of(connection, hold_id) is HoldState.RELEASED
    # The payer has got 400.00 when it was taken back.
    assert lines(connection, "RECOVERY") == [("RECOVERY", "BALANCE", "BALANCE", 60_000, 100_000, 10_000)]
    assert wallet_of(connection, PAYEE) == Wallet(balance_minor=10_000)
    assert wallet_of(connection, PAYER) == Wallet(balance_minor=100_000)
    closed = connection.execute(select(debt)).mappings().one()
    assert (closed["outstanding_minor"], closed["closed_at"], owes(connection)) == (0, DAY_7, 0)
    assert notifications_of(connection, PAYEE)[-2:] == ["PAYMENT_RELEASED", "DEBT_RECOVERED"]
    assert notifications_of(connection, PAYER)[-1] == "PAYMENT_REFUNDED"
    assert proved(connection) == []


@WAYS
def test_a_release_that_is_less_than_the_debt(connection: Connection, release: Any) -> None:
    """All of it is recovered, and the message says what is left."""
    place_debt(connection)
    place_hold(connection, amount="200.00")

    release(connection)

    told = connection.execute(select(notification).where(notification.c.type == "DEBT_RECOVERED"))
    (message,) = told.mappings()
    assert (message["owner"], message["amount_minor"], message["left_minor"]) == (PAYEE, 20_000, 40_000)
    assert message["clawback_id"] == connection.scalars(select(debt.c.clawback_id)).one()
    assert (outstanding(connection), owes(connection)) == ([40_000], 40_000)
    assert wallet_of(connection, PAYEE) == Wallet()
    assert proved(connection) == []


def test_the_oldest_debt_is_paid_first(connection: Connection) -> None:
    """The age is the time of the claw-back, not the order in which they were written."""
    first = place_released(connection, spent="1000.00")
    second = place_released(connection, spent="1000.00")
    take_back(connection, first, "300.00", now=DAY_7)
    take_back(connection, second, "200.00", reference="older", now=DAY_7 - timedelta(days=1))
    place_hold(connection, amount="250.00")

    release_all(connection)

    assert outstanding(connection) == [25_000, 0]
    assert [line[3] for line in lines(connection, "RECOVERY")] == [20_000, 5_000]
    assert proved(connection) == []


def test_the_balance_of_before_is_not_touched(connection: Connection) -> None:
    """A release recovers from what it releases. What was deposited stays until somebody asks for it."""
    place_debt(connection)
    put_in(connection, "500.00")
    place_hold(connection, amount="100.00")

    release_all(connection)

    assert wallet_of(connection, PAYEE) == Wallet(balance_minor=50_000)
    assert outstanding(connection) == [50_000]
    assert proved(connection) == []


def test_a_deposit_recovers_nothing(connection: Connection) -> None:
    """It is the owner's."""
    place_debt(connection)

    put_in(connection, "500.00")

    assert (wallet_of(connection, PAYEE).balance_minor, owes(connection)) == (50_000, 60_000)


def test_a_debt_of_another_currency_waits(connection: Connection) -> None:
    """A debt is of one wallet, and a wallet has one currency."""
    place_debt(connection)
    place_hold(connection, amount="700.00", currency="USD", job="job-usd")

    batch = release_all(connection)

    assert (batch.recovered_minor, outstanding(connection)) == ({}, [60_000])
    assert proved(connection) == []


@pytest.mark.parametrize(
    ("percent", "recovered"), [("25", 17_500), ("33.3333", 23_333), ("0", 0), ("100", 60_000)]
)
def test_a_rule_says_how_much_may_be_recovered(connection: Connection, percent: str, recovered: int) -> None:
    """Rounded down, so that the payee gets at least their part. A hold without such a rule gives all."""
    add(connection, recovery_percent=percent)
    place_debt(connection)
    place_hold(connection, amount="700.00", rule=SELLER)

    batch = release_all(connection)

    assert batch.recovered_minor == ({"PHP": recovered} if recovered else {})
    assert wallet_of(connection, PAYEE) == Wallet(balance_minor=70_000 - recovered)
    assert proved(connection) == []


def test_a_percent_of_a_rule_is_kept_as_it_was_given(connection: Connection) -> None:
    """It is an exact decimal."""
    assert add(connection, recovery_percent="12.5000").recovery_percent == Decimal("12.5")
    assert add(connection, recovery_percent=0).recovery_percent == 0
    assert add(connection).recovery_percent is None


def test_each_hold_gives_by_its_own_rule(connection: Connection) -> None:
    """The budget is the sum of what each may give."""
    add(connection, recovery_percent="10")
    place_debt(connection)
    place_hold(connection, amount="100.00", rule=SELLER)
    place_hold(connection, amount="100.00")

    batch = release_all(connection)

    assert batch.recovered_minor == {"PHP": 11_000}
    assert proved(connection) == []


def test_an_early_release_pays_debts(connection: Connection) -> None:
    """Whole, and of a part."""
    place_debt(connection)
    hold_id = place_hold(connection, amount="500.00")
    who: dict[str, Any] = {"hold_id": hold_id, "by": PAYER, "reason": "well done", "now": NOON}

    part = release_early(connection, amount="100.00", reference="part-1", **who)
    rest = release_early(connection, **who)
    again = release_early(connection, amount="100.00", reference="part-1", **who)

    assert (part.recovered_minor, rest.recovered_minor) == ({"PHP": 10_000}, {"PHP": 40_000})
    assert (again.replayed, again.recovered_minor) == (True, {"PHP": 10_000})
    assert (wallet_of(connection, PAYEE), outstanding(connection)) == (Wallet(), [10_000])
    assert reconcile(connection) == []


@WAYS
def test_a_creditor_may_be_a_payee_of_the_same_batch(connection: Connection, release: Any) -> None:
    """And owe something too: the balances follow the order of the transactions."""
    hold_id = place_released(connection, spent="1000.00")
    put_in(connection, "1000.00", owner="shop")
    take_back(connection, hold_id, advanced_by="shop")
    of_shop = place_released(connection, payee="shop", spent="1000.00")
    take_back(connection, of_shop, "400.00", reference="of shop")
    place_hold(connection, amount="300.00")
    place_hold(connection, amount="250.00", payee="shop")
    place_hold(connection, amount="50.00", payee="worker-18")

    batch = release(connection)

    assert batch.recovered_minor == {"PHP": 55_000}
    # What the shop receives from the worker is not spent on its own debt.
    assert wallet_of(connection, "shop") == Wallet(balance_minor=30_000)
    assert wallet_of(connection, "worker-18") == Wallet(balance_minor=5_000)
    assert (owes(connection), owes(connection, "shop")) == (70_000, 15_000)
    assert proved(connection) == []


def test_what_a_bank_took_is_recovered_to_the_receivable_account(connection: Connection) -> None:
    """It enters no wallet, and the payer is not told."""
    place_debt(connection, to=ClawbackTo.BANK)
    place_hold(connection, amount="700.00")

    release_all(connection)

    assert lines(connection, "RECOVERY") == [("RECOVERY", "BALANCE", "RECEIVABLE", 60_000, 10_000, None)]
    assert notifications_of(connection, PAYER) == []
    assert proved(connection) == []


def test_a_full_creditor_stops_no_release(connection: Connection) -> None:
    """The debt stays open, and the payee gets their money."""
    hold_id = place_released(connection, spent="1000.00")
    fill_wallet(connection, PAYER, capacity_minor=99_999)
    take_back(connection, hold_id)
    place_hold(connection, amount="700.00", payer="client-9", job="job-9")

    batch = release_all(connection)

    assert (batch.holds_released, batch.recovered_minor) == (1, {})
    assert wallet_of(connection, PAYEE) == Wallet(balance_minor=70_000)
    with pytest.raises(WalletFull, match="the wallets of all creditors are full"):
        recover_now(connection)
    assert proved(connection) == []


def test_debts_of_fees_are_paid_too(connection: Connection) -> None:
    """The owner of a fee owes like a payee."""
    first = place_released(connection, shares=WITH_A_FEE, payee="worker-18")
    take_out(connection, "120.00", owner="platform")
    take_back(connection, first, "900.00")
    place_hold(connection, shares=WITH_A_FEE)

    batch = release_all(connection)

    assert owes(connection, "platform") == 0
    assert batch.recovered_minor == {"PHP": 12_000}
    assert proved(connection) == []


def test_a_locked_creditor_is_not_waited_for(engine: Engine) -> None:
    """The hold of the debtor is skipped and left to the next batch; others are released."""
    with engine.begin() as connection:
        place_debt(connection)
        debtors = place_hold(connection, amount="700.00")
        others = place_hold(connection, amount="50.00", payee="worker-18", payer="client-4", job="job-9")
    with engine.begin() as holder:
        holder.execute(text("SELECT FROM buffer.wallet WHERE owner = 'client-3' FOR UPDATE"))

        with engine.begin() as connection:
            first = release_all(connection)
        with engine.begin() as connection:
            empty = release_all(connection)

    with engine.begin() as connection:
        second = release_all(connection)
        assert (first.holds_released, first.recovered_minor) == (1, {})
        assert (empty.holds_released, empty.batch_id) == (0, None)
        assert empty.position is not None
        assert (second.holds_released, second.recovered_minor) == (1, {"PHP": 60_000})
        assert [state_of(connection, each) for each in (debtors, others)] == [HoldState.RELEASED] * 2
        assert proved(connection) == []


def test_an_early_release_that_waits_for_a_claw_back_pays_its_debt(engine: Engine) -> None:
    """The creditor is not among the wallets that it locked at first, so it locks all of them again."""
    with engine.begin() as connection:
        spent = place_released(connection, spent="1000.00")
        waits = place_hold(connection, amount="300.00", payer="client-4", job="job-9")
    who: dict[str, Any] = {"by": ADMIN, "as_admin": True, "reason": "well done", "now": DAY_7}

    taken, released = one_after_the_other(
        engine,
        lambda connection: take_back(connection, spent),
        lambda connection: release_early(connection, hold_id=waits, **who),
    )

    with engine.begin() as connection:
        assert taken.debt_minor == 100_000
        assert not isinstance(released, PaymentBufferError)
        assert released.recovered_minor == {"PHP": 30_000}
        assert (wallet_of(connection, PAYEE), wallet_of(connection, PAYER).balance_minor) == (
            Wallet(),
            30_000,
        )
        assert reconcile(connection) == []


def test_a_run_leaves_a_debtor_whose_creditor_is_locked(engine: Engine) -> None:
    """Its fast path times out and its skip-locked path skips the debtor. The next run takes the hold."""
    with engine.begin() as connection:
        place_debt(connection)
        owed = place_hold(connection, amount="700.00")
        for number in range(3):
            place_hold(connection, payee=f"worker-{20 + number}", payer="client-4", job=f"job-2{number}")
    with engine.begin() as holder:
        holder.execute(text("SELECT FROM buffer.wallet WHERE owner = 'client-3' FOR UPDATE"))

        first = release_all_due(engine, due_by=DAY_7, source=RUN)

    second = release_all_due(engine, due_by=DAY_7, source=RUN)
    with engine.begin() as connection:
        assert (first.holds_released, second.holds_released) == (3, 1)
        assert state_of(connection, owed) is HoldState.RELEASED
        assert owes(connection) == 0
        assert proved(connection) == []


def test_two_who_owe_each_other_are_released_at_once(engine: Engine) -> None:
    """Wallets are locked by id, whoever is the debtor."""
    with engine.begin() as connection:
        ours = place_released(connection, payee="worker-1", payer="worker-2", job="job-1", spent="1000.00")
        theirs = place_released(connection, payee="worker-2", payer="worker-1", job="job-2", spent="1000.00")
        take_back(connection, ours)
        take_back(connection, theirs, reference="claw-back-2")
        holds = [
            place_hold(connection, amount="100.00", payee=payee, payer="client-4", job=f"job-{payee}")
            for payee in ("worker-1", "worker-2")
        ]
    who: dict[str, Any] = {"by": ADMIN, "as_admin": True, "reason": "well done", "now": DAY_7}

    outcomes = all_at_once(
        engine,
        lambda connection: release_early(connection, hold_id=holds[0], **who),
        lambda connection: release_early(connection, hold_id=holds[1], **who),
    )

    with engine.begin() as connection:
        assert [each.recovered_minor for each in outcomes] == [{"PHP": 10_000}] * 2  # type: ignore[union-attr]
        assert [owes(connection, owner) for owner in ("worker-1", "worker-2")] == [90_000] * 2
        assert reconcile(connection) == []


def test_the_audit_trail_names_what_was_taken_back_and_recovered(connection: Connection) -> None:
    """Scheduled releases are not in it, as before."""
    debt_id = place_debt(connection)
    hold_id = place_hold(connection, amount="100.00")
    release_early(connection, hold_id=hold_id, by=ADMIN, as_admin=True, reason="fine", now=DAY_7)
    forgive(connection, debt_id)

    for filters in ({}, {"owner": PAYEE}, {"hold_id": hold_id - 1}):
        found = [(line["verb"], line["owner"], line["by"]) for line in audit_trail(connection, **filters)]
        assert ("CLAW_BACK", PAYEE, ADMIN) in found
        assert ("RECOVER_DEBT", PAYEE, ADMIN) in found
        assert ("FORGIVE_DEBT", PAYEE, ADMIN) in found
