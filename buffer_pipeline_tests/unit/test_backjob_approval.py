"""Rule 6: an approval refunds the held money to the job's payer."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, select, text

from buffer_pipeline.backjob import approve_backjob, reject_backjob, withdraw_backjob
from buffer_pipeline.database import make_engine
from buffer_pipeline.errors import BooksOutOfBalance, FreezeRefused, InvalidInput
from buffer_pipeline.freeze import unfreeze_hold
from buffer_pipeline.hold import BackjobState, FreezeKind, HoldState
from buffer_pipeline.tables import transaction
from buffer_pipeline_tests.support.backjobs import Decide, backjob_row, decide, freeze, request
from buffer_pipeline_tests.support.builders import (
    ADMIN,
    DAY_7,
    NOON,
    PAYEE,
    PAYER,
    Wallet,
    books,
    hold_row,
    notifications_of,
    place_hold,
    state_of,
    transactions_of,
    wallet_of,
)

DAY = timedelta(days=1)


def test_approval_refunds_all_to_the_payer(connection: Connection) -> None:
    """With a transaction, and both are notified."""
    hold_id = place_hold(connection)
    opened = request(connection)

    approved = decide(connection, approve_backjob, opened.backjob_id, now=NOON + DAY)

    row = hold_row(connection, hold_id)
    assert approved == replace(opened, state=BackjobState.APPROVED)
    decided = backjob_row(connection, opened.backjob_id)
    assert (decided["decided_by"], decided["decision_reason"]) == (ADMIN, "looked at it")
    assert (decided["decided_at"], decided["refunded_minor"]) == (NOON + DAY, 100_000)
    assert (row["state"], row["refunded_minor"], row["settled_at"]) == ("REFUNDED", 100_000, NOON + DAY)
    assert wallet_of(connection, PAYEE) == Wallet()
    assert wallet_of(connection, PAYER) == Wallet(balance_minor=100_000)
    assert transactions_of(connection, hold_id) == [("PENDING_EARNING", 100_000), ("REFUND", 100_000)]
    assert sorted(notifications_of(connection, PAYEE)[-2:]) == ["BACKJOB_APPROVED", "PAYMENT_REFUNDED"]
    assert sorted(notifications_of(connection, PAYER)) == ["BACKJOB_APPROVED", "PAYMENT_REFUNDED"]


def test_approval_over_currencies_is_notified_once(connection: Connection) -> None:
    """An owner has a wallet in each currency, and gets one notification of the approval."""
    place_hold(connection, currency="PHP")
    place_hold(connection, currency="USD")

    decide(connection, approve_backjob, request(connection).backjob_id)

    assert notifications_of(connection, PAYER).count("BACKJOB_APPROVED") == 1
    assert notifications_of(connection, PAYEE).count("BACKJOB_APPROVED") == 1


def test_approval_long_after_the_release_date_still_refunds(connection: Connection) -> None:
    """A frozen hold waits for its decision, however late."""
    hold_id = place_hold(connection)
    opened = request(connection)

    decide(connection, approve_backjob, opened.backjob_id, now=DAY_7 + 100 * DAY)

    assert state_of(connection, hold_id) is HoldState.REFUNDED


def test_approval_refunds_a_team_in_several_currencies(connection: Connection) -> None:
    """Each hold is refunded in its own currency, with a running balance per wallet."""
    for amount, payee, currency in (
        ("100.00", PAYEE, "PHP"),
        ("20.00", "worker-18", "PHP"),
        ("7.00", PAYEE, "USD"),
    ):
        place_hold(connection, amount=amount, payee=payee, currency=currency)

    decide(connection, approve_backjob, request(connection).backjob_id)

    assert wallet_of(connection, PAYER) == Wallet(balance_minor=12_000)
    assert wallet_of(connection, PAYER, "USD") == Wallet(balance_minor=700)
    assert wallet_of(connection, "worker-18") == Wallet()
    after = connection.execute(
        select(transaction.c.balance_after_minor)
        .where(transaction.c.type == "REFUND", transaction.c.currency == "PHP")
        .order_by(transaction.c.transaction_id)
    ).scalars()
    assert list(after) == [10_000, 12_000]


def test_refund_goes_to_the_jobs_payer(connection: Connection) -> None:
    """The payer of another job gets nothing."""
    place_hold(connection, amount="100.00")
    place_hold(connection, amount="50.00", job="job-9", payer="client-4")

    decide(connection, approve_backjob, request(connection).backjob_id)

    assert wallet_of(connection, PAYER) == Wallet(balance_minor=10_000)
    assert wallet_of(connection, "client-4") == Wallet()


@pytest.mark.parametrize("kind", [FreezeKind.ADMIN, FreezeKind.RISK])
def test_approval_is_refused_while_another_freeze_is_open(connection: Connection, kind: FreezeKind) -> None:
    """The refusal names the freeze and its hold. After its closing, the approval succeeds."""
    place_hold(connection)
    hold_id = place_hold(connection)
    opened = request(connection)
    other = freeze(connection, hold_id, kind)
    before = books(connection)

    with pytest.raises(FreezeRefused, match=f"{kind} freeze {other.freeze_id} on hold {hold_id}"):
        decide(connection, approve_backjob, opened.backjob_id)

    assert books(connection) == before
    unfreeze_hold(connection, freeze_id=other.freeze_id, by=ADMIN, reason="fine", now=NOON)
    assert decide(connection, approve_backjob, opened.backjob_id).state is BackjobState.APPROVED


def test_refused_approval_names_all_open_freezes(connection: Connection) -> None:
    """Each must be closed before the approval."""
    hold_id = place_hold(connection)
    opened = request(connection)
    admins, risks = (freeze(connection, hold_id, kind) for kind in (FreezeKind.ADMIN, FreezeKind.RISK))

    with pytest.raises(FreezeRefused) as refusal:
        decide(connection, approve_backjob, opened.backjob_id)

    assert str(refusal.value) == (
        f"backjob {opened.backjob_id}: cannot be approved while"
        f" ADMIN freeze {admins.freeze_id} on hold {hold_id},"
        f" RISK freeze {risks.freeze_id} on hold {hold_id} are open"
    )


def test_refund_that_was_not_written_is_refused(engine: Engine, superuser_url: str) -> None:
    """An approval that refunds less than it should raises an error and is rolled back."""
    with engine.begin() as connection:
        place_hold(connection)
        backjob_id = request(connection).backjob_id
        before = books(connection)
    with make_engine(superuser_url).begin() as superuser:
        superuser.execute(
            text("CREATE FUNCTION buffer.lose() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'")
        )
        superuser.execute(
            text(
                "CREATE TRIGGER lose BEFORE INSERT ON buffer.transaction FOR EACH ROW"
                " WHEN (NEW.type = 'REFUND') EXECUTE FUNCTION buffer.lose()"
            )
        )

    with engine.connect() as connection:
        with pytest.raises(BooksOutOfBalance) as refusal:
            decide(connection, approve_backjob, backjob_id)
        connection.rollback()
        assert books(connection) == before

    assert str(refusal.value) == (
        f"backjob {backjob_id}: 100000 minor units were to be refunded, 0 were; roll back"
    )


@pytest.mark.parametrize("decision", [reject_backjob, withdraw_backjob])
def test_decision_that_was_not_written_is_refused(
    engine: Engine, superuser_url: str, decision: Decide
) -> None:
    """A decision that updates no open backjob raises an error and is rolled back."""
    with engine.begin() as connection:
        place_hold(connection)
        backjob_id = request(connection).backjob_id
        before = books(connection)
    with make_engine(superuser_url).begin() as superuser:
        superuser.execute(
            text("CREATE FUNCTION buffer.lose() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'")
        )
        superuser.execute(
            text(
                "CREATE TRIGGER a_lose BEFORE UPDATE ON buffer.backjob FOR EACH ROW"
                " EXECUTE FUNCTION buffer.lose()"
            )
        )

    with engine.connect() as connection:
        with pytest.raises(BooksOutOfBalance, match=f"^backjob {backjob_id}: decided without its job's lock"):
            decide(connection, decision, backjob_id, by=PAYER if decision is withdraw_backjob else ADMIN)
        connection.rollback()
        assert books(connection) == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hold_ids": [1.5]}, "^hold 1.5: needs an int"),
        ({"amount": "1.001"}, "^amount 1.001: PHP has 2 places, this has 3$"),
    ],
)
def test_approval_with_invalid_input_is_refused(
    connection: Connection, changes: dict[str, Any], message: str
) -> None:
    """Ids and amounts are checked as everywhere, and the message names them."""
    place_hold(connection)
    backjob_id = request(connection).backjob_id
    before = books(connection)

    with pytest.raises(InvalidInput, match=message):
        decide(connection, approve_backjob, backjob_id, **changes)

    assert books(connection) == before
