"""An earning with shares: each share is a hold, and the payee is notified once."""

from datetime import datetime, timedelta
from typing import Any, Final

import pytest
from sqlalchemy import Connection, select

from buffer_pipeline.audit.reconcile import reconcile
from buffer_pipeline.backjob import approve_backjob, reject_backjob, request_backjob
from buffer_pipeline.errors import InvalidInput, NotAllowed, ReferenceConflict, StateRefused, WindowClosed
from buffer_pipeline.hold import HoldState
from buffer_pipeline.intake import AddedHold, Earning, add_many_pending_earnings, add_pending_earnings
from buffer_pipeline.notifications.contact import change_contact
from buffer_pipeline.release import release_early, release_matured
from buffer_pipeline.reports.holds import show_hold
from buffer_pipeline.shares import Share, ShareKind
from buffer_pipeline.tables import notification
from buffer_pipeline_tests.support.builders import (
    DAY_7,
    JOB,
    NOON,
    PAYEE,
    PAYER,
    Wallet,
    notifications_of,
    row_counts,
    state_of,
    wallet_of,
)

PLATFORM: Final = "platform"
TAX: Final = "tax-office"
SHARES: Final = (
    Share(kind=ShareKind.PAYEE),
    Share(kind=ShareKind.FEE, owner=PLATFORM, percent=12),
    Share(kind=ShareKind.TAX, owner=TAX, percent=2, days=0),
    Share(kind=ShareKind.RESERVE, percent=10, days=90),
)
DAY_90: Final = NOON + timedelta(days=90)


def earn(connection: Connection, reference: str = "invoice-1", **values: Any) -> AddedHold:
    """Add an earning of 1,000.00 PHP, by default with all four kinds of shares."""
    return add_pending_earnings(connection, **_earning(reference, **values), now=NOON)


def _earning(reference: str = "invoice-1", **values: Any) -> dict[str, Any]:
    return {
        "reference": reference,
        "job": JOB,
        "payee": PAYEE,
        "payer": PAYER,
        "amount": "1000.00",
        "currency": "PHP",
        "shares": SHARES,
        **values,
    }


def ids(added: AddedHold) -> dict[str, int]:
    """Return kind -> hold id."""
    return {share.kind.value: share.hold_id for share in added.shares}


def states(connection: Connection, added: AddedHold) -> dict[str, HoldState]:
    """Return kind -> state."""
    return {kind: state_of(connection, hold_id) for kind, hold_id in ids(added).items()}


def release(connection: Connection, now: datetime) -> int:
    """Release what is due, and return the number of holds."""
    return release_matured(connection, now=now, batch_limit=100).holds_released


@pytest.mark.parametrize("first", [True, False])
def test_each_share_is_a_hold_of_its_own(connection: Connection, first: bool) -> None:
    """With new wallets and existing ones, the figures are the same."""
    if not first:
        earn(connection, "invoice-0")

    added = earn(connection)

    before = 0 if first else 1
    assert [(share.kind, share.owner, share.amount_minor, share.release_date) for share in added.shares] == [
        ("PAYEE", PAYEE, 76_000, DAY_7),
        ("FEE", PLATFORM, 12_000, DAY_7),
        ("TAX", TAX, 2_000, NOON),
        ("RESERVE", PAYEE, 10_000, DAY_90),
    ]
    assert (added.hold_id, added.release_date) == (added.shares[0].hold_id, DAY_7)
    assert wallet_of(connection, PAYEE) == Wallet(pending_earnings_minor=86_000 * (1 + before))
    assert wallet_of(connection, PLATFORM) == Wallet(pending_earnings_minor=12_000 * (1 + before))
    assert wallet_of(connection, TAX) == Wallet(pending_earnings_minor=2_000 * (1 + before))
    assert notifications_of(connection, PAYEE) == ["PAYMENT_PENDING"] * (1 + before)
    assert notifications_of(connection, PLATFORM) == []
    assert reconcile(connection) == []
    shown = show_hold(connection, reference="invoice-1")
    assert (shown["hold_id"], shown["kind"], shown["amount_minor"]) == (added.hold_id, "PAYEE", 76_000)
    assert [(share["kind"], share["owner"]) for share in shown["shares"]] == [
        ("PAYEE", PAYEE),
        ("FEE", PLATFORM),
        ("TAX", TAX),
        ("RESERVE", PAYEE),
    ]
    assert show_hold(connection, hold_id=ids(added)["RESERVE"])["shares"] == shown["shares"]


def test_an_earning_that_is_all_the_payees_is_one_hold(connection: Connection) -> None:
    """A single share is like none."""
    added = earn(connection, shares=[Share(kind=ShareKind.PAYEE, amount="1000.00")])

    assert added.shares == ()
    assert row_counts(connection)["hold"] == 1
    assert show_hold(connection, hold_id=added.hold_id)["shares"] == []


def test_the_reference_is_the_whole_earnings(connection: Connection) -> None:
    """A replay writes nothing and returns the shares. Other shares or another sum are refused."""
    added = earn(connection)
    rows = row_counts(connection)

    again = earn(connection)
    unsaid = earn(connection, shares=())
    with pytest.raises(
        ReferenceConflict, match=r"shares PAYEE 760.00 'worker-17' .*, not shares PAYEE 500.00"
    ):
        earn(
            connection,
            shares=[Share(kind=ShareKind.PAYEE), Share(kind=ShareKind.FEE, owner=PLATFORM, amount=500)],
        )
    with pytest.raises(ReferenceConflict, match=r"amount 1000.00 PHP, not amount 999.00 PHP"):
        earn(connection, amount="999.00")
    with pytest.raises(ReferenceConflict, match=r"not no shares"):
        earn(connection, shares=[Share(kind=ShareKind.PAYEE)])

    assert again.replayed
    assert (again.hold_id, again.shares) == (added.hold_id, added.shares)
    assert (unsaid.replayed, unsaid.shares) == (True, added.shares)
    assert row_counts(connection) == rows


def test_many_earnings_with_and_without_shares(connection: Connection) -> None:
    """In a few statements: the same holds as singly, and refusals for invalid ones."""
    earnings = [
        Earning(**_earning("invoice-1")),
        Earning(**_earning("invoice-2", shares=())),
        Earning(**_earning("invoice-3", shares=[Share(kind=ShareKind.FEE, owner=PLATFORM, amount=1)])),
        Earning(**_earning("invoice-4", payee="worker-18")),
    ]

    one, two, three, four = add_many_pending_earnings(connection, earnings, now=NOON)
    again = add_many_pending_earnings(connection, earnings, now=NOON)

    assert isinstance(one, AddedHold)
    assert isinstance(two, AddedHold)
    assert isinstance(three, InvalidInput)
    assert isinstance(four, AddedHold)
    assert [len(added.shares) for added in (one, two, four)] == [4, 0, 4]
    assert [share.owner for share in four.shares] == ["worker-18", PLATFORM, TAX, "worker-18"]
    assert wallet_of(connection, PAYEE).pending_earnings_minor == 186_000
    assert wallet_of(connection, PLATFORM).pending_earnings_minor == 24_000
    assert [added.replayed for added in again if isinstance(added, AddedHold)] == [True] * 3
    assert again[0].shares == one.shares  # type: ignore[union-attr]
    assert reconcile(connection) == []


def test_each_share_is_released_on_its_own_date(connection: Connection) -> None:
    """The payee is notified of their share and later of the reserve; owners of fees are not."""
    earn(connection)

    assert release(connection, NOON) == 1
    assert wallet_of(connection, TAX) == Wallet(balance_minor=2_000)
    assert release(connection, DAY_7) == 2
    assert wallet_of(connection, PLATFORM) == Wallet(balance_minor=12_000)
    assert wallet_of(connection, PAYEE) == Wallet(balance_minor=76_000, pending_earnings_minor=10_000)
    assert release(connection, DAY_90) == 1
    assert wallet_of(connection, PAYEE) == Wallet(balance_minor=86_000)

    assert notifications_of(connection, PAYEE) == [
        "PAYMENT_PENDING",
        "PAYMENT_RELEASED",
        "PAYMENT_RELEASED",
    ]
    assert notifications_of(connection, PLATFORM) == []
    assert reconcile(connection) == []


def test_an_owner_of_fees_may_ask_to_be_notified(connection: Connection) -> None:
    """By their contact, of each fee from then on."""
    change_contact(connection, owner=PLATFORM, changes={"notify_of_shares": True}, now=NOON)
    earn(connection)

    release(connection, DAY_7)

    assert notifications_of(connection, PLATFORM) == ["PAYMENT_PENDING", "PAYMENT_RELEASED"]


def test_a_backjob_freezes_all_shares_and_notifies_the_payee_once(connection: Connection) -> None:
    """All shares that are not due, including the reserve. A rejection buffers them."""
    added = earn(connection)
    release(connection, NOON)

    backjob = request_backjob(connection, job=JOB, by=PAYER, reason="Leaks", now=NOON + timedelta(days=1))

    frozen = states(connection, added)
    assert frozen == {"PAYEE": "FROZEN", "FEE": "FROZEN", "TAX": "RELEASED", "RESERVE": "FROZEN"}
    assert notifications_of(connection, PAYEE) == ["PAYMENT_PENDING", "BACKJOB_RECEIVED", "PAYMENT_FROZEN"]
    assert notifications_of(connection, PLATFORM) == []
    reject_backjob(
        connection, backjob_id=backjob.backjob_id, by="admin-1", reason="Done", now=NOON + timedelta(days=2)
    )
    assert set(states(connection, added).values()) == {"BUFFERED", "RELEASED"}
    assert notifications_of(connection, PAYEE)[3:] == ["BACKJOB_REJECTED", "PAYMENT_RESUMED"]
    assert reconcile(connection) == []


def test_a_reserve_alone_does_not_keep_the_window_open(connection: Connection) -> None:
    """The payee's own share determines the window."""
    added = earn(connection)
    release(connection, DAY_7)

    with pytest.raises(WindowClosed, match="its payees' shares are settled"):
        request_backjob(connection, job=JOB, by=PAYER, reason="Leaks", now=DAY_7 + timedelta(days=1))

    assert state_of(connection, ids(added)["RESERVE"]) is HoldState.BUFFERED


def test_an_approved_refund_is_taken_from_all_shares_in_proportion(connection: Connection) -> None:
    """Half of the sum takes half of each. The payer is notified once of the whole sum."""
    added = earn(connection)
    backjob = request_backjob(connection, job=JOB, by=PAYER, reason="Leaks", now=NOON)

    approve_backjob(
        connection,
        backjob_id=backjob.backjob_id,
        by="admin-1",
        reason="Half",
        now=NOON + timedelta(days=1),
        amount="490.00",
    )

    # The tax was due at once, so it was not frozen.
    assert wallet_of(connection, PAYER) == Wallet(balance_minor=49_000)
    assert wallet_of(connection, PAYEE).pending_earnings_minor == 43_000
    assert wallet_of(connection, PLATFORM).pending_earnings_minor == 6_000
    refunds = connection.execute(
        select(notification.c.owner, notification.c.hold_id, notification.c.amount_minor)
        .where(notification.c.type == "PAYMENT_REFUNDED")
        .order_by(notification.c.owner)
    ).all()
    assert refunds == [(PAYER, added.hold_id, 49_000), (PAYEE, added.hold_id, 38_000)]
    assert reconcile(connection) == []


def test_an_early_release_leaves_the_reserve(connection: Connection) -> None:
    """The payer releases payee's share, fee and tax. Only an admin releases the reserve, by its own id."""
    added = earn(connection)

    batch = release_early(connection, hold_id=added.hold_id, by=PAYER, reason="Happy", now=NOON)

    assert (batch.holds_released, batch.amounts_minor) == (3, {"PHP": 90_000})
    reserve = ids(added)["RESERVE"]
    with pytest.raises(NotAllowed, match=f"hold {reserve}: is a reserve; only an admin"):
        release_early(connection, hold_id=reserve, by=PAYER, reason="Happy", now=NOON)
    with pytest.raises(StateRefused, match="cannot release early from RELEASED"):
        release_early(connection, job=JOB, by=PAYER, reason="Happy", now=NOON)
    release_early(connection, hold_id=reserve, by="admin-1", reason="Trusted", now=NOON, as_admin=True)
    with pytest.raises(StateRefused):
        release_early(connection, hold_id=added.hold_id, by=PAYER, reason="Happy", now=NOON)
    assert wallet_of(connection, PAYEE) == Wallet(balance_minor=86_000)
    assert reconcile(connection) == []


def test_an_early_release_of_a_job_takes_each_earnings_shares(connection: Connection) -> None:
    """Every share of the job except the reserves."""
    earn(connection)
    earn(connection, "invoice-2")

    batch = release_early(connection, job=JOB, by=PAYER, reason="Happy", now=NOON)

    assert batch.holds_released == 6
    assert wallet_of(connection, PAYEE) == Wallet(balance_minor=152_000, pending_earnings_minor=20_000)


def test_an_earning_during_a_backjob_is_frozen_with_its_shares(connection: Connection) -> None:
    """Except shares that are due already."""
    earn(connection)
    request_backjob(connection, job=JOB, by=PAYER, reason="Leaks", now=NOON)

    late = earn(connection, "invoice-2")

    assert late.state is HoldState.FROZEN
    assert states(connection, late) == {
        "PAYEE": "FROZEN",
        "FEE": "FROZEN",
        "TAX": "BUFFERED",
        "RESERVE": "FROZEN",
    }
    assert reconcile(connection) == []
