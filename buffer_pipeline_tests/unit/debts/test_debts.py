"""Debts are forgiven by an admin, recovered on request, and listed."""

from datetime import timedelta

import pytest
from sqlalchemy import Connection, Engine, select, text
from sqlalchemy.exc import DBAPIError

from buffer_pipeline.audit.reconcile import reconcile
from buffer_pipeline.debts import ClawbackTo
from buffer_pipeline.errors import (
    DebtRefused,
    InsufficientFunds,
    InvalidInput,
    NotFound,
    ReferenceConflict,
    WalletFull,
)
from buffer_pipeline.tables import batch, debt, notification
from buffer_pipeline_tests.support.builders import (
    ADMIN,
    DAY_7,
    PAYEE,
    PAYER,
    Wallet,
    all_at_once,
    books,
    notifications_of,
    place_hold,
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
)
from buffer_pipeline_tests.support.full_wallets import fill_wallet
from buffer_pipeline_tests.support.read_rows import all_debts


def test_a_forgiven_debt_is_paid_by_the_loss_account(connection: Connection) -> None:
    """The payer gets what they waited for, and the payee owes nothing more."""
    debt_id = place_debt(connection)

    done = forgive(connection, debt_id)

    row = connection.execute(select(debt)).mappings().one()
    made = connection.execute(select(batch).where(batch.c.batch_id == row["forgiven_id"])).mappings().one()
    assert (done.owner, done.currency, done.amount_minor, done.replayed) == (PAYEE, "PHP", 60_000, False)
    assert (made["kind"], made["source"], made["reason"]) == ("FORGIVEN", ADMIN, "a good worker")
    assert (row["outstanding_minor"], row["closed_at"], owes(connection)) == (0, DAY_7, 0)
    assert lines(connection, "WRITE_OFF") == [("WRITE_OFF", "LOSS", "BALANCE", 60_000, 100_000, None)]
    assert wallet_of(connection, PAYER) == Wallet(balance_minor=100_000)
    assert notifications_of(connection, PAYER) == ["PAYMENT_REFUNDED"] * 2
    told = (
        connection.execute(select(notification).where(notification.c.type == "DEBT_FORGIVEN"))
        .mappings()
        .one()
    )
    assert (told["owner"], told["hold_id"], told["clawback_id"]) == (
        PAYEE,
        row["hold_id"],
        row["clawback_id"],
    )
    assert (told["amount_minor"], told["currency"], told["left_minor"]) == (60_000, "PHP", None)
    assert reconcile(connection) == []


def test_a_forgiven_debt_for_a_bank_is_a_loss_of_the_receivable(connection: Connection) -> None:
    """No wallet gets anything: the bank has taken it long ago."""
    debt_id = place_debt(connection, to=ClawbackTo.BANK)

    forgive(connection, debt_id)

    assert lines(connection, "WRITE_OFF") == [("WRITE_OFF", "LOSS", "RECEIVABLE", 60_000, None, None)]
    assert notifications_of(connection, PAYEE)[-1] == "DEBT_FORGIVEN"
    assert reconcile(connection) == []


def test_only_what_is_outstanding_is_forgiven(connection: Connection) -> None:
    """What was recovered before stays recovered."""
    debt_id = place_debt(connection)
    put_in(connection, "100.00")
    recover_now(connection)

    done = forgive(connection, debt_id)

    assert done.amount_minor == 50_000
    assert reconcile(connection) == []


def test_a_closed_debt_is_not_forgiven(connection: Connection) -> None:
    """With the same reference the first result is returned, and without one it is refused."""
    debt_id = place_debt(connection)
    first = forgive(connection, debt_id, reference="forgive-1")
    before = books(connection)

    again = forgive(connection, debt_id, reference="forgive-1")

    assert (again.replayed, again.amount_minor) == (True, first.amount_minor)
    with pytest.raises(DebtRefused, match=f"debt {debt_id}: of '{PAYEE}', closed since"):
        forgive(connection, debt_id)
    with pytest.raises(
        ReferenceConflict, match=r"already used for a forgiven debt of 600\.00 PHP by 'admin-1'"
    ):
        forgive(connection, debt_id, reference="forgive-1", reason="another")
    assert books(connection) == before


def test_a_debt_that_cannot_be_forgiven(connection: Connection) -> None:
    """It does not exist, is younger, or its creditor is full."""
    hold_id = place_released(connection, spent="1000.00")
    fill_wallet(connection, PAYER, capacity_minor=99_999)
    debt_id = take_back(connection, hold_id).debt_ids[0]
    before = books(connection)

    with pytest.raises(NotFound, match="debt 404: does not exist"):
        forgive(connection, 404)
    with pytest.raises(InvalidInput, match=f"lies before debt {debt_id} was opened"):
        forgive(connection, debt_id, now=DAY_7 - timedelta(minutes=2))
    with pytest.raises(WalletFull, match=f"debt {debt_id}: its creditor's wallet"):
        forgive(connection, debt_id)
    assert books(connection) == before


def test_a_balance_pays_debts_if_somebody_asks(connection: Connection) -> None:
    """What was deposited, up to all that is owed."""
    place_debt(connection)
    put_in(connection, "700.00")

    done = recover_now(connection, reason="agreed by phone")

    made = connection.execute(select(batch).order_by(batch.c.batch_id.desc())).mappings().first()
    assert made is not None
    assert (made["kind"], made["source"], made["reason"]) == ("RECOVERY", ADMIN, "agreed by phone")
    assert (done.recovered_minor, [each.amount_minor for each in done.debts]) == ({"PHP": 60_000}, [60_000])
    assert wallet_of(connection, PAYEE) == Wallet(balance_minor=10_000)
    assert notifications_of(connection, PAYEE)[-1] == "DEBT_RECOVERED"
    assert reconcile(connection) == []


def test_each_currency_pays_its_own_debts(connection: Connection) -> None:
    """One call is for all wallets of the owner."""
    place_debt(connection)
    in_usd = place_released(connection, currency="USD", job="job-usd")
    connection.execute(text("SELECT 1"))
    take_back(connection, in_usd, reference="usd")
    put_in(connection, "10.00")
    put_in(connection, "20.00", currency="USD")

    done = recover_now(connection)

    assert done.recovered_minor == {"PHP": 1_000}
    assert reconcile(connection) == []


def test_nothing_to_recover_is_refused(connection: Connection) -> None:
    """Nobody owes, or the balance is empty. Nothing is written."""
    place_hold(connection)

    with pytest.raises(DebtRefused, match="owner 'worker-17': has no open debt"):
        recover_now(connection)
    with pytest.raises(DebtRefused, match="owner 'nobody': has no open debt"):
        recover_now(connection, owner="nobody")
    place_debt(connection)
    before = books(connection)
    with pytest.raises(InsufficientFunds, match="nothing to recover debts from; the balance is 0"):
        recover_now(connection)
    assert books(connection) == before


def test_a_repeated_recovery_acts_once(connection: Connection) -> None:
    """With its reference; other content is refused."""
    place_debt(connection)
    put_in(connection, "100.00")
    first = recover_now(connection, reference="recover-1")
    put_in(connection, "100.00")
    before = books(connection)

    again = recover_now(connection, reference="recover-1")

    assert (again.replayed, again.debts) == (True, first.debts)
    with pytest.raises(ReferenceConflict, match="already used for a recovery of debts"):
        recover_now(connection, reference="recover-1", by="admin-2")
    assert books(connection) == before


def test_a_list_of_debts(connection: Connection) -> None:
    """Who owes whom how much, and since when; a bank is named as such."""
    place_debt(connection)
    other = place_released(connection, payee="worker-18", job="job-9", spent="900.00")
    take_back(connection, other, to=ClawbackTo.BANK, reference="claw-back-2")
    put_in(connection, "600.00")
    recover_now(connection)

    everything = all_debts(connection)
    (of_one,) = all_debts(connection, owner="worker-18")

    assert [
        (each["owner"], each["creditor"], each["amount_minor"], each["outstanding_minor"])
        for each in everything
    ] == [("worker-18", None, 90_000, 90_000), (PAYEE, PAYER, 60_000, 0)]
    assert (of_one["hold_id"], of_one["currency"], of_one["opened_at"]) == (other, "PHP", DAY_7)
    assert (of_one["reason"], of_one["by"], of_one["forgiven_by"]) == ("chargeback 17", ADMIN, None)
    assert [each["owner"] for each in all_debts(connection, only_open=True)] == ["worker-18"]
    assert all_debts(connection, owner="nobody") == []


def test_two_claw_backs_at_once_take_no_more_than_there_is(engine: Engine) -> None:
    """The wallet of the payee is locked before what is left is read."""
    with engine.begin() as connection:
        hold_id = place_released(connection, spent="500.00")

    outcomes = all_at_once(
        engine,
        lambda connection: take_back(connection, hold_id, "700.00", reference="one"),
        lambda connection: take_back(connection, hold_id, "700.00", reference="two"),
    )

    with engine.begin() as connection:
        assert sorted(type(each).__name__ for each in outcomes) == ["Clawback", "InsufficientFunds"]
        assert outstanding(connection) == [20_000]
        assert reconcile(connection) == []


def test_the_same_claw_back_raced_takes_once(engine: Engine) -> None:
    """The reference is locked first."""
    with engine.begin() as connection:
        hold_id = place_released(connection, spent="500.00")

    outcomes = all_at_once(engine, *[lambda connection: take_back(connection, hold_id, "700.00")] * 3)

    with engine.begin() as connection:
        assert sorted(each.replayed for each in outcomes) == [False, True, True]  # type: ignore[union-attr]
        assert len(lines(connection, "CLAWBACK")) == 1
        assert reconcile(connection) == []


def test_a_claw_back_on_an_old_snapshot_conflicts(engine: Engine) -> None:
    """It would not see what another one has taken meanwhile."""
    with engine.begin() as connection:
        hold_id = place_released(connection, spent="500.00")
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as older:
        older.execute(text("SELECT count(*) FROM buffer.wallet"))
        with engine.begin() as connection:
            take_back(connection, hold_id, "700.00", reference="one")

        with pytest.raises(DBAPIError, match="could not serialize access"):
            take_back(older, hold_id, "700.00", reference="two")


@pytest.mark.parametrize(
    "change",
    ["outstanding_minor = outstanding_minor + 1", "outstanding_minor = outstanding_minor"],
)
def test_a_debt_only_goes_down(connection: Connection, change: str) -> None:
    """For every login."""
    place_debt(connection)
    put_in(connection, "100.00")
    recover_now(connection)

    with pytest.raises(DBAPIError, match="its rows are kept as they were written"):
        connection.execute(text(f"UPDATE buffer.debt SET {change}"))
