"""Messages about shares, to the payee and to other owners."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

import pytest
from sqlalchemy import Connection

from buffer_pipeline.backjob import request_backjob
from buffer_pipeline.freeze import freeze_hold, unfreeze_hold
from buffer_pipeline.hold import FreezeKind
from buffer_pipeline.intake import AddedHold, add_pending_earnings
from buffer_pipeline.notifications.contact import change_contact
from buffer_pipeline.notifications.messages import Message, samples
from buffer_pipeline.refund import refund_hold
from buffer_pipeline.release import release_early, release_matured
from buffer_pipeline.shares import Share, ShareKind
from buffer_pipeline_tests.support.builders import DAY_7, JOB, NOON, PAYEE, PAYER
from buffer_pipeline_tests.support.deliveries import claim_from, dispatch_all
from buffer_pipeline_tests.support.messages import BUILT_IN, MANILA

PLATFORM: Final = "platform"
DAY_90: Final = NOON + timedelta(days=90)


def earn(connection: Connection, *more: Share) -> AddedHold:
    """Add an earning of 1,000.00 PHP: 12 % fee, 2 % tax, 10 % reserve for 90 days."""
    return add_pending_earnings(
        connection,
        reference="invoice-1",
        job=JOB,
        payee=PAYEE,
        payer=PAYER,
        amount="1000.00",
        currency="PHP",
        title="Fix kitchen faucet",
        shares=[
            Share(kind=ShareKind.PAYEE),
            Share(kind=ShareKind.FEE, owner=PLATFORM, percent=12),
            Share(kind=ShareKind.TAX, owner="tax-office", percent=2),
            Share(kind=ShareKind.RESERVE, percent=10, days=90),
            *more,
        ],
        metadata={"order": "A-17"},
        now=NOON,
    )


def sent(connection: Connection) -> dict[str, list[Message]]:
    """Return owner -> messages that are sent now and were not claimed before."""
    dispatch_all(connection)
    messages: dict[str, list[Message]] = {}
    for claimed in claim_from(connection):
        message = BUILT_IN.render(claimed.notification, MANILA)
        messages.setdefault(message.owner, []).append(message)
    return messages


def data(message: Message, *names: str) -> Mapping[str, Any]:
    """Return these properties of the payload."""
    return {name: message.payload["data"][name] for name in names}


def test_payee_is_notified_of_the_whole_division(connection: Connection) -> None:
    """Gross, fee, tax, and the reserve with its date, in text and payload."""
    added = earn(connection)

    (message,) = sent(connection)[PAYEE]

    assert message.title == "Payment Pending - ₱760.00 💰"
    assert message.text.split("\n") == [
        "The client paid ₱1,000.00 for 'Fix kitchen faucet'. ₱760.00 of it will be released to you on"
        " March 9, 2026, 8:00 PM (GMT+08:00) (7 days).",
        "Fee: ₱120.00",
        "Tax: ₱20.00",
        "Reserve: ₱100.00, to be released on May 31, 2026, 8:00 PM (GMT+08:00) (90 days)",
    ]
    assert message.html.count("<p ") == 4
    payee, fee, tax, reserve = (share.hold_id for share in added.shares)
    assert data(message, "hold_id", "kind", "amount", "earning_id", "earning_amount", "metadata") == {
        "hold_id": payee,
        "kind": "PAYEE",
        "amount": "760.00",
        "earning_id": payee,
        "earning_amount": "1000.00",
        "metadata": {"order": "A-17"},
    }
    week, late = "2026-03-09T12:00:00Z", "2026-05-31T12:00:00Z"
    assert [tuple(share.values()) for share in message.payload["data"]["shares"]] == [
        (payee, "PAYEE", PAYEE, "760.00", week),
        (fee, "FEE", PLATFORM, "120.00", week),
        (tax, "TAX", "tax-office", "20.00", week),
        (reserve, "RESERVE", PAYEE, "100.00", late),
    ]


def test_another_payee_is_notified_of_their_share_only(connection: Connection) -> None:
    """The other payee learns only of what they get themselves."""
    added = earn(connection, Share(kind=ShareKind.PAYEE, owner="worker-18", amount=300))

    messages = sent(connection)

    assert messages[PAYEE][0].text.endswith("\nTo another payee: ₱300.00")
    (other,) = messages["worker-18"]
    assert other.text == (
        "You earned ₱300.00 for 'Fix kitchen faucet'. Payment will be released on"
        " March 9, 2026, 8:00 PM (GMT+08:00) (7 days)."
    )
    assert data(other, "kind", "earning_id", "earning_amount", "shares", "metadata") == {
        "kind": "PAYEE",
        "earning_id": added.hold_id,
        "earning_amount": None,
        "shares": [],
        "metadata": {"order": "A-17"},
    }


def test_release_announces_the_reserve(connection: Connection) -> None:
    """Its later release is a second message, about the reserve only."""
    earn(connection)
    release_matured(connection, now=DAY_7, batch_limit=100)

    _, released = sent(connection)[PAYEE]
    release_matured(connection, now=DAY_90, batch_limit=100)
    _, without, reserve = [
        BUILT_IN.render(each.notification, MANILA)
        for each in _again(connection)
        if each.notification.owner == PAYEE
    ]

    paid = "You received ₱760.00 for 'Fix kitchen faucet'. The funds have been added to your wallet!"
    assert (released.title, released.text) == (
        "Payment Released! 🎉",
        f"{paid}\nA reserve of ₱100.00 stays in your pending earnings until"
        " May 31, 2026, 8:00 PM (GMT+08:00).",
    )
    # Sent late, when the reserve is released too.
    assert without.text == paid
    assert (reserve.title, reserve.text) == (
        "Reserve Released! 🎉",
        "The reserve of ₱100.00 for 'Fix kitchen faucet' was released."
        " The funds have been added to your wallet!",
    )
    assert data(reserve, "kind", "amount", "earning_amount") == {
        "kind": "RESERVE",
        "amount": "100.00",
        "earning_amount": "1000.00",
    }
    assert len(reserve.payload["data"]["shares"]) == 4


def test_a_frozen_reserve_has_no_date(connection: Connection) -> None:
    """A date that may not hold is not announced."""
    added = earn(connection)
    freeze_hold(
        connection,
        hold_id=added.shares[3].hold_id,
        kind=FreezeKind.RISK,
        by="risk-1",
        reason="Check",
        now=NOON,
    )
    release_matured(connection, now=DAY_7, batch_limit=100)

    released = sent(connection)[PAYEE][-1]

    assert released.text.endswith("\nA reserve of ₱100.00 stays in your pending earnings.")


def test_owners_of_fees_are_notified_on_request(connection: Connection) -> None:
    """From the hold to its end, only about their fee."""
    change_contact(connection, owner=PLATFORM, changes={"notify_of_shares": True}, now=NOON)
    added = earn(connection)
    fee = added.shares[1].hold_id
    frozen = freeze_hold(
        connection, hold_id=fee, kind=FreezeKind.ADMIN, by="admin-1", reason="Check", now=NOON
    )
    unfreeze_hold(connection, freeze_id=frozen.freeze_id, by="admin-1", reason="Fine", now=NOON)
    freeze_hold(connection, hold_id=fee, kind=FreezeKind.ADMIN, by="admin-1", reason="Check", now=NOON)
    refund_hold(connection, hold_id=fee, by="admin-1", reason="Waived", reference="r-1", amount=120, now=NOON)

    messages = sent(connection)

    assert [(message.title, message.text.split(".")[0]) for message in messages[PLATFORM]] == [
        ("Fee Pending - ₱120.00 💰", "A fee of ₱120"),
        ("Fee On Hold - ₱120.00 ⏸️", "The fee of ₱120"),
        ("Fee Resumed - ₱120.00 ▶️", "The fee of ₱120"),
        ("Fee On Hold - ₱120.00 ⏸️", "The fee of ₱120"),
        ("Fee Refunded - ₱120.00 ↩️", "₱120"),
    ]
    assert data(messages[PLATFORM][0], "kind", "earning_id", "earning_amount", "shares") == {
        "kind": "FEE",
        "earning_id": added.hold_id,
        "earning_amount": None,
        "shares": [],
    }
    # The payer is notified of a refund of any share.
    (refunded,) = messages[PAYER]
    assert refunded.title == "Payment Refunded - ₱120.00 ↩️"
    assert refunded.payload["data"]["shares"] == []


def test_frozen_reserve_has_its_own_text(connection: Connection) -> None:
    """The payee has been paid, so the text does not say that their payment is on hold."""
    added = earn(connection)
    release_matured(connection, now=DAY_7, batch_limit=100)
    freeze_hold(
        connection,
        hold_id=added.shares[3].hold_id,
        kind=FreezeKind.ADMIN,
        by="admin-1",
        reason="Check",
        now=DAY_7,
    )

    frozen = sent(connection)[PAYEE][-1]

    assert frozen.title == "Reserve On Hold - ₱100.00 ⏸️"
    assert frozen.text.startswith("Your reserve of ₱100.00 for 'Fix kitchen faucet' is frozen while it is")


def test_backjob_messages_name_the_payees_own_share(connection: Connection) -> None:
    """The payee's messages name their own share."""
    earn(connection)
    request_backjob(connection, job=JOB, by=PAYER, reason="Leaks", now=NOON)

    messages = sent(connection)[PAYEE]

    assert [message.type for message in messages] == [
        "PAYMENT_PENDING",
        "BACKJOB_RECEIVED",
        "PAYMENT_FROZEN",
    ]
    assert data(messages[1], "kind", "earning_id", "earning_amount", "shares", "metadata") == {
        "kind": None,
        "earning_id": None,
        "earning_amount": None,
        "shares": [],
        "metadata": {},
    }
    assert messages[2].title == "Payment On Hold - ₱760.00 ⏸️"


@pytest.mark.parametrize("kind", ShareKind)
def test_each_kind_has_a_sample_of_each_type_with_a_hold(kind: ShareKind) -> None:
    """So that a folder's templates are tested with each."""
    types = {sample.type for sample in samples() if sample.kind == kind and sample.earning_id is not None}

    assert types == {sample.type for sample in samples() if sample.hold_id is not None}


def _again(connection: Connection) -> list[Any]:
    dispatch_all(connection, now=DAY_90)
    return claim_from(connection, now=DAY_90 + timedelta(hours=1))


def test_released_part_of_an_earning_names_the_rest_and_the_reserve(connection: Connection) -> None:
    """The payee is notified of their own part, the owner of the fee, on request, of the fee's."""
    added = earn(connection)
    change_contact(connection, owner=PLATFORM, changes={"notify_of_shares": True}, now=NOON)

    release_early(
        connection,
        hold_id=added.hold_id,
        amount="90.00",
        by=PAYER,
        reason="a part",
        reference="part-1",
        now=NOON,
    )

    messages = sent(connection)
    (_, of_payee), (of_fee,) = messages[PAYEE], messages[PLATFORM]
    assert of_payee.title == "Payment Partly Released! 🎉"
    assert of_payee.text.split("\n") == [
        "You received ₱76.00 for 'Fix kitchen faucet'. The funds have been added to your wallet!",
        "₱684.00 is still held until March 9, 2026, 8:00 PM (GMT+08:00).",
        "A reserve of ₱100.00 stays in your pending earnings until May 31, 2026, 8:00 PM (GMT+08:00).",
    ]
    assert of_fee.title == "Fee Partly Released! 🎉"
    assert of_fee.text.split("\n") == [
        "₱12.00 of the fee for 'Fix kitchen faucet' was released. The funds have been added to your wallet!",
        "₱108.00 is still held until March 9, 2026, 8:00 PM (GMT+08:00).",
    ]
    assert data(of_fee, "amount", "left_amount") == {"amount": "12.00", "left_amount": "108.00"}
