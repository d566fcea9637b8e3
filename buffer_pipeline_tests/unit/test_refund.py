"""An admin refunds a frozen hold, whole or in part, without a backjob."""

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, select

from buffer_pipeline.audit.reconcile import reconcile
from buffer_pipeline.backjob import reject_backjob
from buffer_pipeline.errors import (
    BackjobRefused,
    BooksOutOfBalance,
    FreezeRefused,
    InsufficientFunds,
    InvalidInput,
    NotFound,
    StateRefused,
)
from buffer_pipeline.freeze import unfreeze_hold
from buffer_pipeline.hold import BackjobState, HoldState
from buffer_pipeline.release import release_early, release_matured
from buffer_pipeline.reports.holds import show_hold
from buffer_pipeline.tables import batch, hold_freeze, transaction
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
    open_freezes,
    place_hold,
    transactions_of,
    wallet_of,
)
from buffer_pipeline_tests.support.refunds import approve, freeze_for_risk, open_backjob, refund
from buffer_pipeline_tests.support.runs import corrupt

DAY = timedelta(days=1)


def test_a_frozen_hold_is_refunded_to_its_payer(connection: Connection) -> None:
    """Both are notified, and every freeze is closed by the refund."""
    hold_id = place_hold(connection, state=HoldState.FROZEN)
    freeze_for_risk(connection, hold_id)

    done = refund(connection, hold_id, now=NOON + DAY)

    row = hold_row(connection, hold_id)
    assert (done.hold_id, done.amount_minor, done.left_minor) == (hold_id, 100_000, 0)
    assert (done.state, done.replayed) == (HoldState.REFUNDED, False)
    assert (row["state"], row["refunded_minor"], row["settled_at"]) == ("REFUNDED", 100_000, NOON + DAY)
    assert row["release_date"] == DAY_7
    assert wallet_of(connection, PAYEE) == Wallet()
    assert wallet_of(connection, PAYER) == Wallet(balance_minor=100_000)
    assert open_freezes(connection, hold_id) == []
    closed = connection.execute(select(hold_freeze)).mappings().all()
    assert [(each["closed_by"], each["closing_reason"], each["closed_at"]) for each in closed] == [
        (ADMIN, "stolen card", NOON + DAY)
    ] * 2
    assert notifications_of(connection, PAYEE)[2:] == ["PAYMENT_REFUNDED"]
    assert notifications_of(connection, PAYER) == ["PAYMENT_REFUNDED"]
    assert reconcile(connection) == []


def test_a_refund_says_who_and_why(connection: Connection) -> None:
    """Its line has a reference and a batch with person and reason, and no backjob."""
    hold_id = place_hold(connection, state=HoldState.FROZEN)

    done = refund(connection, hold_id)

    line = (
        connection.execute(select(transaction).where(transaction.c.transaction_id == done.transaction_id))
        .mappings()
        .one()
    )
    assert (line["type"], line["hold_id"], line["backjob_id"]) == ("REFUND", hold_id, None)
    assert (line["amount_minor"], line["balance_after_minor"]) == (100_000, 100_000)
    assert (line["reference"], line["recorded_at"]) == ("refund-1", NOON)
    made = connection.execute(select(batch).where(batch.c.batch_id == line["batch_id"])).mappings().one()
    assert (made["kind"], made["source"], made["reason"]) == ("REFUND", ADMIN, "stolen card")
    assert (made["due_by"], made["recorded_at"]) == (None, NOON)


def test_a_shown_refund_does_not_read_as_a_release(connection: Connection) -> None:
    """Who refunded and why is stored apart from who released the rest."""
    hold_id = place_hold(connection, state=HoldState.FROZEN)
    refund(connection, hold_id, amount="400.00")
    freeze_id = connection.scalars(select(hold_freeze.c.freeze_id)).one()
    unfreeze_hold(connection, freeze_id=freeze_id, by=ADMIN, reason="cleared", now=NOON)
    release_early(connection, hold_id=hold_id, by=PAYER, reason="well done", now=NOON)

    _, refunded, released = show_hold(connection, hold_id=hold_id)["transactions"]

    assert (refunded["refunded_by"], refunded["refund_reason"]) == (ADMIN, "stolen card")
    assert (refunded["released_by"], refunded["release_reason"]) == (None, None)
    assert (released["released_by"], released["release_reason"]) == (PAYER, "well done")
    assert (released["refunded_by"], released["refund_reason"]) == (None, None)


def test_part_of_a_refund_leaves_the_rest_frozen(connection: Connection) -> None:
    """The freezes stay open. The rest can be refunded in further parts, or unfrozen."""
    hold_id = place_hold(connection, state=HoldState.FROZEN)

    first = refund(connection, hold_id, amount="250.50")
    second = refund(connection, hold_id, amount=100, reference="refund-2")

    assert (first.amount_minor, first.left_minor, first.state) == (25_050, 74_950, HoldState.FROZEN)
    assert (second.left_minor, second.state) == (64_950, HoldState.FROZEN)
    assert open_freezes(connection, hold_id) == ["ADMIN"]
    assert wallet_of(connection, PAYEE) == Wallet(pending_earnings_minor=64_950)
    assert reconcile(connection) == []
    rest = refund(connection, hold_id, reference="refund-3")
    assert (rest.amount_minor, rest.left_minor, rest.state) == (64_950, 0, HoldState.REFUNDED)
    assert wallet_of(connection, PAYER) == Wallet(balance_minor=100_000)
    assert transactions_of(connection, hold_id) == [
        ("PENDING_EARNING", 100_000),
        ("REFUND", 25_050),
        ("REFUND", 10_000),
        ("REFUND", 64_950),
    ]
    assert notifications_of(connection, PAYER) == ["PAYMENT_REFUNDED"] * 3
    assert reconcile(connection) == []


def test_the_rest_of_a_refund_is_released(connection: Connection) -> None:
    """After the freeze is closed, on its own date."""
    hold_id = place_hold(connection)
    frozen = freeze_for_risk(connection, hold_id)
    refund(connection, hold_id, amount="999.99")

    unfreeze_hold(connection, freeze_id=frozen.freeze_id, by=ADMIN, reason="fine", now=NOON)
    released = release_matured(connection, now=DAY_7, batch_limit=10)

    assert released.amounts_minor == {"PHP": 1}
    assert hold_row(connection, hold_id)["refunded_minor"] == 99_999
    assert reconcile(connection) == []


def test_a_frozen_hold_is_refunded_long_after_its_date(connection: Connection) -> None:
    """A freeze has no deadline."""
    hold_id = place_hold(connection, state=HoldState.FROZEN)

    done = refund(connection, hold_id, now=DAY_7 + 300 * DAY)

    assert done.state is HoldState.REFUNDED


def test_refund_after_a_decided_backjob(connection: Connection) -> None:
    """An earlier backjob does not matter; its partial refund counts."""
    hold_id = place_hold(connection)
    approve(connection, open_backjob(connection), amount="400.00")
    freeze_for_risk(connection, hold_id)

    done = refund(connection, hold_id)

    assert (done.amount_minor, done.state) == (60_000, HoldState.REFUNDED)
    assert hold_row(connection, hold_id)["refunded_minor"] == 100_000
    assert reconcile(connection) == []


@pytest.mark.parametrize("state", [HoldState.BUFFERED, HoldState.RELEASED, HoldState.REFUNDED])
def test_only_a_frozen_hold_is_refunded(connection: Connection, state: HoldState) -> None:
    """A buffered hold must be frozen first; a settled one stays settled."""
    hold_id = place_hold(connection, state=state)
    before = books(connection)

    with pytest.raises(StateRefused) as refusal:
        refund(connection, hold_id)

    assert str(refusal.value) == (
        f"hold {hold_id}: cannot refund without a backjob from {state}; that needs FROZEN"
    )
    assert (refusal.value.hold_id, refusal.value.state, refusal.value.allowed) == (
        hold_id,
        state,
        ("FROZEN",),
    )
    assert books(connection) == before


@pytest.mark.parametrize("frozen_too", [False, True])
def test_hold_with_an_open_backjob_is_not_refunded(connection: Connection, frozen_too: bool) -> None:
    """The refusal names the backjob, which must be decided."""
    hold_id = place_hold(connection)
    backjob_id = open_backjob(connection)
    if frozen_too:
        freeze_for_risk(connection, hold_id)
    before = books(connection)

    with pytest.raises(BackjobRefused) as refusal:
        refund(connection, hold_id)

    assert str(refusal.value) == (
        f"hold {hold_id}: backjob {backjob_id} covers it; approve, reject or withdraw that"
    )
    assert (refusal.value.hold_id, refusal.value.backjob_id) == (hold_id, backjob_id)
    assert (refusal.value.state, refusal.value.allowed) == (
        BackjobState.OPEN,
        ("approve", "reject", "withdraw"),
    )
    assert books(connection) == before


def test_a_refund_above_what_is_held_is_refused(connection: Connection) -> None:
    """It is never clamped."""
    hold_id = place_hold(connection, state=HoldState.FROZEN)
    refund(connection, hold_id, amount="0.01")
    before = books(connection)

    with pytest.raises(InsufficientFunds) as refusal:
        refund(connection, hold_id, amount="1000.00", reference="refund-2")

    assert str(refusal.value) == f"hold {hold_id}: 1000.00 PHP is above the 999.99 that it holds"
    assert refusal.value.hold_id == hold_id
    assert books(connection) == before


@pytest.mark.parametrize("hold_id", [404, 0])
def test_an_unknown_hold_is_not_refunded(connection: Connection, hold_id: int) -> None:
    """It is named in the message and as an attribute, also for an id out of range."""
    with pytest.raises(NotFound) as refusal:
        refund(connection, hold_id)

    assert (str(refusal.value), refusal.value.hold_id) == (f"hold {hold_id}: does not exist", hold_id)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"by": ""}, "by: must not be empty"),
        ({"reason": ""}, "reason: must not be empty"),
        ({"reference": ""}, "reference: must not be empty"),
        ({"reference": "x" * 201}, "reference: 201 characters"),
        ({"now": NOON.replace(tzinfo=None)}, "now .* no time zone"),
        ({"amount": "0"}, "amount"),
        ({"amount": "1.001"}, "amount 1.001: PHP has 2 places, this has 3"),
        ({"amount": 1.5}, "amount"),
    ],
)
def test_bad_input_is_refused_without_a_refund(
    connection: Connection, change: dict[str, Any], message: str
) -> None:
    """What cannot be recorded is refused."""
    hold_id = place_hold(connection, state=HoldState.FROZEN)
    before = books(connection)

    with pytest.raises(InvalidInput, match=message):
        refund(connection, hold_id, **change)

    assert books(connection) == before


def test_a_rejection_and_a_refund_of_the_rest(connection: Connection) -> None:
    """An admin's freeze from before the backjob and the refund after it add up."""
    hold_id = place_hold(connection, state=HoldState.FROZEN)
    backjob_id = open_backjob(connection)
    reject_backjob(connection, backjob_id=backjob_id, by=ADMIN, reason="no", now=NOON)

    done = refund(connection, hold_id)

    assert done.state is HoldState.REFUNDED
    assert reconcile(connection) == []


def test_damaged_books_are_named(engine: Engine, superuser_url: str) -> None:
    """A FROZEN hold without a freeze, or a freeze without FROZEN, is refused with a message."""
    with engine.begin() as connection:
        alone, other = place_hold(connection, state=HoldState.FROZEN), place_hold(connection, job="job-9")
        lifted = freeze_for_risk(connection, other)
    corrupt(
        superuser_url,
        f"DELETE FROM buffer.hold_freeze WHERE hold_id = {alone}",
        f"UPDATE buffer.unsettled_hold SET state = 'BUFFERED' WHERE hold_id = {other}",
    )

    with engine.connect() as connection, connection.begin():
        with pytest.raises(
            FreezeRefused, match=f"^hold {alone}: FROZEN without an open freeze; freeze it first"
        ) as refused:
            refund(connection, alone)
        assert refused.value.hold_id == alone
        with pytest.raises(
            BooksOutOfBalance, match=f"^hold {other}: freeze {lifted.freeze_id} is open, and the"
        ):
            unfreeze_hold(connection, freeze_id=lifted.freeze_id, by=ADMIN, reason="x", now=NOON)


def test_a_refund_that_changes_nothing_is_an_error(engine: Engine, superuser_url: str) -> None:
    """If the hold's row is not written, here because of a trigger, the caller must roll back."""
    with engine.begin() as connection:
        hold_id = place_hold(connection, state=HoldState.FROZEN)
    corrupt(
        superuser_url,
        "CREATE FUNCTION public.nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
        "CREATE TRIGGER nothing BEFORE UPDATE OR DELETE ON buffer.unsettled_hold"
        " FOR EACH ROW EXECUTE FUNCTION public.nothing()",
    )

    with (
        engine.connect() as connection,
        pytest.raises(
            BooksOutOfBalance, match=f"^hold {hold_id}: the refund of 100 minor units failed; roll back$"
        ),
    ):
        refund(connection, hold_id, amount="1.00")
