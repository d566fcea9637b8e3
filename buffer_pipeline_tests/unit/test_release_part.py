"""Rule 13: a part of a hold is released early, and the rest waits."""

from datetime import timedelta
from typing import Any, Final

import pytest
from sqlalchemy import Connection, Engine, select

from buffer_pipeline.audit.reconcile import reconcile
from buffer_pipeline.backjob import approve_backjob, request_backjob
from buffer_pipeline.errors import InsufficientFunds, InvalidInput, NotAllowed, NotFound, StateRefused
from buffer_pipeline.freeze import unfreeze_hold
from buffer_pipeline.hold import HoldState
from buffer_pipeline.refund import refund_hold
from buffer_pipeline.release import ReleaseBatch
from buffer_pipeline.reports.audit_trail import audit_trail
from buffer_pipeline.reports.holds import show_hold
from buffer_pipeline.tables import batch, hold_freeze, notification, transaction, unsettled_hold
from buffer_pipeline_tests.support.builders import (
    ADMIN,
    DAY_7,
    JOB,
    NOON,
    PAYEE,
    PAYER,
    Wallet,
    books,
    hold_row,
    one_after_the_other,
    place_hold,
    state_of,
    transactions_of,
    wallet_of,
)
from buffer_pipeline_tests.support.releases import early, release_all

HELD: Final = 100_000


def part(connection: Connection, hold_id: int, amount: str = "250.50", **changes: Any) -> ReleaseBatch:
    """Release a part of a hold as its payer, with some arguments changed."""
    return early(connection, **{"hold_id": hold_id, "amount": amount, "reference": "part-1", **changes})


def test_a_payer_releases_a_part(connection: Connection) -> None:
    """The payee gets it at once. The rest keeps its date, and the batch has who and why."""
    hold_id = place_hold(connection)

    released = part(connection, hold_id)

    assert released == ReleaseBatch(
        parts_released=1,
        amounts_minor={"PHP": 25_050},
        left_minor={"PHP": 74_950},
        batch_id=released.batch_id,
    )
    waiting = connection.execute(select(unsettled_hold)).mappings().one()
    assert (waiting["state"], waiting["amount_minor"], waiting["release_date"]) == ("BUFFERED", 74_950, DAY_7)
    assert wallet_of(connection, PAYEE) == Wallet(balance_minor=25_050, pending_earnings_minor=74_950)
    row = hold_row(connection, hold_id)
    assert (row["refunded_minor"], row["released_minor"], row["settled_at"]) == (0, 25_050, None)
    made = connection.execute(select(batch)).mappings().one()
    assert (made["kind"], made["source"], made["reason"], made["reference"], made["named_hold_id"]) == (
        "EARLY",
        PAYER,
        "well done",
        "part-1",
        hold_id,
    )
    assert reconcile(connection) == []


def test_the_line_of_a_part_has_the_balance_after_it_and_the_date_of_the_rest(connection: Connection) -> None:
    """One append-only transaction, from the payee's pending earnings into their balance."""
    hold_id = place_hold(connection)

    part(connection, hold_id)

    of_part = select(transaction).where(transaction.c.type == "EARNING_PART")
    line = connection.execute(of_part).mappings().one()
    assert (line["hold_id"], line["amount_minor"], line["balance_after_minor"]) == (hold_id, 25_050, 25_050)
    assert (line["from_account"], line["to_account"]) == ("PENDING_EARNINGS", "BALANCE")
    assert (line["recorded_at"], line["release_date"], line["reference"]) == (NOON, DAY_7, None)


def test_payee_is_notified_of_the_part_and_the_rest(connection: Connection) -> None:
    """The paid amount, the held amount, and its date."""
    hold_id = place_hold(connection)

    part(connection, hold_id)

    of_release = select(notification).where(notification.c.type == "PAYMENT_RELEASED")
    notified = connection.execute(of_release).mappings()
    assert [
        (row["owner"], row["hold_id"], row["amount_minor"], row["left_minor"], row["release_date"])
        for row in notified
    ] == [(PAYEE, hold_id, 25_050, 74_950, DAY_7)]


def test_the_rest_is_released_when_it_is_due(connection: Connection) -> None:
    """The hold has its parts and one EARNING of the rest."""
    hold_id = place_hold(connection)
    part(connection, hold_id)
    part(connection, hold_id, "49.50", reference="part-2")

    released = release_all(connection)

    assert (released.holds_released, released.amounts_minor) == (1, {"PHP": 70_000})
    assert transactions_of(connection, hold_id) == [
        ("PENDING_EARNING", HELD),
        ("EARNING_PART", 25_050),
        ("EARNING_PART", 4_950),
        ("EARNING", 70_000),
    ]
    row = hold_row(connection, hold_id)
    assert (row["state"], row["refunded_minor"], row["released_minor"]) == ("RELEASED", 0, HELD)
    assert wallet_of(connection, PAYEE) == Wallet(balance_minor=HELD)
    assert reconcile(connection) == []


def test_the_rest_can_be_refunded(connection: Connection) -> None:
    """A backjob refunds only what is still held."""
    hold_id = place_hold(connection)
    part(connection, hold_id)
    backjob = request_backjob(connection, job=JOB, by=PAYER, reason="leaks", now=NOON)

    approve_backjob(connection, backjob_id=backjob.backjob_id, by=ADMIN, reason="indeed", now=NOON)

    row = hold_row(connection, hold_id)
    assert (row["state"], row["refunded_minor"], row["released_minor"]) == ("REFUNDED", 74_950, 25_050)
    assert wallet_of(connection, PAYEE) == Wallet(balance_minor=25_050)
    assert wallet_of(connection, PAYER) == Wallet(balance_minor=74_950)
    assert reconcile(connection) == []


def test_part_of_a_rest_after_a_refund_is_released(connection: Connection) -> None:
    """A partial refund, a released part and the released rest add up to the amount."""
    hold_id = place_hold(connection, state=HoldState.FROZEN)
    refund_hold(connection, hold_id=hold_id, by=ADMIN, reason="half", reference="r-1", amount="500", now=NOON)
    (freeze_id,) = connection.scalars(select(hold_freeze.c.freeze_id))
    unfreeze_hold(connection, freeze_id=freeze_id, by=ADMIN, reason="done", now=NOON)

    part(connection, hold_id)
    standing = hold_row(connection, hold_id)
    release_all(connection)

    assert (standing["refunded_minor"], standing["released_minor"]) == (50_000, 25_050)
    row = hold_row(connection, hold_id)
    assert (row["state"], row["refunded_minor"], row["released_minor"]) == ("RELEASED", 50_000, 50_000)
    assert reconcile(connection) == []


def test_all_that_is_held_is_an_ordinary_early_release(connection: Connection) -> None:
    """Also if given as an amount: the hold is RELEASED by an EARNING, without a message about a rest."""
    hold_id = place_hold(connection)
    part(connection, hold_id)

    released = part(connection, hold_id, "749.50", reference="part-2")

    assert (released.holds_released, released.parts_released, released.left_minor) == (1, 0, {})
    assert state_of(connection, hold_id) is HoldState.RELEASED
    assert transactions_of(connection, hold_id)[-1] == ("EARNING", 74_950)
    left = connection.scalars(select(notification.c.left_minor).order_by(notification.c.notification_id))
    assert left.all() == [None, 74_950, None]
    assert reconcile(connection) == []


@pytest.mark.parametrize("amount", ["1000.01", "100000"])
def test_more_than_is_held_is_refused(connection: Connection, amount: str) -> None:
    """The refusal has the held amount. Nothing is clamped."""
    hold_id = place_hold(connection)
    before = books(connection)

    message = rf"^hold {hold_id}: {amount}(\.00)? PHP is above the 1000.00 that it holds$"
    with pytest.raises(InsufficientFunds, match=message) as refusal:
        part(connection, hold_id, amount)

    assert refusal.value.hold_id == hold_id
    assert books(connection) == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"hold_id": None, "job": JOB},
            "^release early: an amount of job 'job-8'; a part is released of",
        ),
        ({"reference": None}, "^release early: a part needs a reference; without one, a repeated call"),
        ({"reference": ""}, "^reference: must not be empty"),
        ({"amount": "0"}, "^amount 0: must be above zero"),
        ({"amount": "-1"}, "^amount -1: must be above zero"),
        ({"amount": "0.001"}, "^amount 0.001: PHP has 2 places, this has 3"),
        ({"amount": 0.5}, "never a float"),
    ],
)
def test_a_bad_part_is_refused(connection: Connection, change: dict[str, Any], message: str) -> None:
    """Nothing is written."""
    hold_id = place_hold(connection)
    before = books(connection)

    with pytest.raises(InvalidInput, match=message):
        part(connection, **{"hold_id": hold_id, **change})

    assert books(connection) == before


@pytest.mark.parametrize("state", [HoldState.FROZEN, HoldState.RELEASED, HoldState.REFUNDED])
def test_a_part_needs_a_buffered_hold(connection: Connection, state: HoldState) -> None:
    """A frozen or settled hold is refused."""
    hold_id = place_hold(connection, state=state)
    before = books(connection)

    with pytest.raises(StateRefused) as refusal:
        part(connection, hold_id)

    message = f"hold {hold_id}: cannot release a part early from {state}; that needs BUFFERED"
    assert str(refusal.value) == message
    assert books(connection) == before


def test_only_payer_and_admin_release_a_part(connection: Connection) -> None:
    """Not the payee. An unknown hold is named."""
    hold_id = place_hold(connection)

    with pytest.raises(NotAllowed, match=f"'{PAYEE}' may not release it early"):
        part(connection, hold_id, by=PAYEE)
    with pytest.raises(NotFound, match="hold 404: does not exist"):
        part(connection, 404)
    part(connection, hold_id, by=ADMIN, as_admin=True)

    assert wallet_of(connection, PAYEE).balance_minor == 25_050


def test_a_hold_shows_its_parts(connection: Connection) -> None:
    """In its transactions, with who and why, and in its amounts."""
    hold_id = place_hold(connection)
    part(connection, hold_id)

    shown = show_hold(connection, hold_id=hold_id)

    assert (shown["amount_minor"], shown["released_minor"], shown["left_minor"]) == (HELD, 25_050, 74_950)
    line = shown["transactions"][-1]
    assert (line["type"], line["amount_minor"], line["to"]) == ("EARNING_PART", 25_050, PAYEE)
    assert (line["released_by"], line["release_reason"]) == (PAYER, "well done")


@pytest.mark.parametrize("arguments", [{}, {"owner": PAYEE}, {"hold_id": None}, {"by": PAYER}])
def test_a_part_is_in_the_audit_trail(connection: Connection, arguments: dict[str, Any]) -> None:
    """Who released how much of which hold, why, and with which reference."""
    hold_id = place_hold(connection)
    part(connection, hold_id)

    arguments = {name: value or hold_id for name, value in arguments.items()}
    (line,) = audit_trail(connection, **arguments)

    assert (line["verb"], line["by"], line["hold_id"], line["reason"]) == (
        "RELEASE_PART",
        PAYER,
        hold_id,
        "well done",
    )
    assert (line["detail"]["amount_minor"], line["detail"]["reference"]) == (25_050, "part-1")


def test_the_window_stays_open(connection: Connection) -> None:
    """The payer can still request a backjob on the rest."""
    hold_id = place_hold(connection)
    part(connection, hold_id)

    request_backjob(connection, job=JOB, by=PAYER, reason="leaks", now=DAY_7 - timedelta(microseconds=1))

    assert state_of(connection, hold_id) is HoldState.FROZEN


def test_concurrent_parts_are_both_released(engine: Engine) -> None:
    """The second waits and takes from the rest. A third one that is too large is refused."""
    with engine.begin() as connection:
        hold_id = place_hold(connection, amount="100")

    first, second = one_after_the_other(
        engine,
        lambda connection: part(connection, hold_id, "60", reference="a"),
        lambda connection: part(connection, hold_id, "60", reference="b"),
    )

    assert first.left_minor == {"PHP": 4_000}
    assert isinstance(second, InsufficientFunds)
    assert "is above the 40.00 that it holds" in str(second)


def test_concurrent_calls_with_one_reference_release_a_part_once(engine: Engine) -> None:
    """The second waits for the first and returns its result."""
    with engine.begin() as connection:
        hold_id = place_hold(connection)

    first, second = one_after_the_other(
        engine, lambda connection: part(connection, hold_id), lambda connection: part(connection, hold_id)
    )

    assert isinstance(second, ReleaseBatch)
    assert (first.replayed, second.replayed, second.batch_id) == (False, True, first.batch_id)
    with engine.begin() as connection:
        assert wallet_of(connection, PAYEE).balance_minor == 25_050
