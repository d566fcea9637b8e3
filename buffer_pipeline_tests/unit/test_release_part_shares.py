"""A part of an earning with shares: each share except the reserve gives in proportion."""

from typing import Final

import pytest
from sqlalchemy import Connection, select

from buffer_pipeline.audit.reconcile import reconcile
from buffer_pipeline.errors import BooksOutOfBalance, InsufficientFunds, NotAllowed, ReferenceConflict
from buffer_pipeline.freeze import freeze_hold
from buffer_pipeline.hold import FreezeKind, HoldState
from buffer_pipeline.notifications.contact import change_contact
from buffer_pipeline.release import ReleaseBatch
from buffer_pipeline.release.parts import release_parts
from buffer_pipeline.shares import Share, ShareKind
from buffer_pipeline.tables import batch, notification
from buffer_pipeline_tests.support.builders import (
    ADMIN,
    NOON,
    PAYEE,
    WITH_A_FEE,
    Wallet,
    books,
    hold_row,
    place_hold,
    state_of,
    transactions_of,
    wallet_of,
)
from buffer_pipeline_tests.support.earnings import HALF_A_FEE
from buffer_pipeline_tests.support.releases import early

PLATFORM: Final = "platform"


def part(connection: Connection, hold_id: int, amount: str, **changes: object) -> ReleaseBatch:
    """Release a part as the payer."""
    return early(connection, hold_id=hold_id, amount=amount, **{"reference": "part-1", **changes})


def test_a_part_of_an_earning_is_taken_from_its_shares(connection: Connection) -> None:
    """780, 120 and a reserve of 100: a part of 90 is 78 of the payee's share and 12 of the fee."""
    first = place_hold(connection, shares=WITH_A_FEE)

    released = part(connection, first, "90")

    assert (released.holds_released, released.parts_released) == (0, 2)
    assert (released.amounts_minor, released.left_minor) == ({"PHP": 9_000}, {"PHP": 81_000})
    assert wallet_of(connection, PAYEE) == Wallet(balance_minor=7_800, pending_earnings_minor=80_200)
    assert wallet_of(connection, PLATFORM) == Wallet(balance_minor=1_200, pending_earnings_minor=10_800)
    assert hold_row(connection, first + 2)["released_minor"] == 0
    assert connection.scalars(select(batch.c.left_minor)).all() == [81_000]
    assert reconcile(connection) == []


def test_a_part_that_a_hold_does_not_give_is_refused(connection: Connection) -> None:
    """A frozen hold gives nothing. The error says what left the buffer, was credited and was written."""
    given = place_hold(connection)
    frozen = place_hold(connection, state=HoldState.FROZEN, job="job-9")
    rows = [{"hold_id": hold_id, "amount_minor": 100_000, "currency": "PHP"} for hold_id in (given, frozen)]

    with pytest.raises(BooksOutOfBalance) as refusal:
        release_parts(
            connection, rows, 30_002, source=ADMIN, reason="x", now=NOON, reference="r", named_hold_id=given
        )

    assert str(refusal.value) == (
        f"hold {given}: of 2 holds 30002 minor units were to be released; 1 gave 15001,"
        " 1 of 15001 were credited, 1 of 15001 written; roll back"
    )


def test_indivisible_part_goes_to_the_largest_remainder(connection: Connection) -> None:
    """0.01 is the payee's; the fee has no line."""
    first = place_hold(connection, shares=WITH_A_FEE)

    released = part(connection, first, "0.01")

    assert released.parts_released == 1
    assert transactions_of(connection, first)[-1] == ("EARNING_PART", 1)
    assert len(transactions_of(connection, first + 1)) == 1


def test_a_small_share_gives_all_that_it_holds(connection: Connection) -> None:
    """It is released whole, in the same batch as the others' parts."""
    shares = (Share(kind=ShareKind.PAYEE), Share(kind=ShareKind.FEE, owner=PLATFORM, amount="0.01"))
    first = place_hold(connection, amount="0.10", shares=shares)

    released = part(connection, first, "0.09")
    again = part(connection, first, "0.09")

    assert (released.holds_released, released.parts_released) == (1, 1)
    assert released.left_minor == again.left_minor == {"PHP": 1}
    assert (again.holds_released, again.parts_released, again.replayed) == (1, 1, True)
    assert [state_of(connection, first), state_of(connection, first + 1)] == [
        HoldState.BUFFERED,
        HoldState.RELEASED,
    ]
    assert reconcile(connection) == []


@pytest.mark.parametrize("amount", [None, "0.02"])
def test_part_is_not_replayed_as_a_whole_release(connection: Connection, amount: str | None) -> None:
    """Of two shares of 0.01, a part of 0.01 takes all of one, so that no transaction shows that it was a
    part.
    """
    first = place_hold(connection, amount="0.02", shares=HALF_A_FEE)
    released = part(connection, first, "0.01")
    assert (released.holds_released, released.parts_released) == (1, 0)
    before = books(connection)

    with pytest.raises(ReferenceConflict, match=rf"the early release of 0\.01 PHP of hold {first} by"):
        early(connection, hold_id=first, amount=amount, reference="part-1")

    assert part(connection, first, "0.01").replayed
    assert books(connection) == before


def test_another_shares_id_is_that_share_alone(connection: Connection) -> None:
    """The payer releases a part of the fee; the payee gets nothing."""
    first = place_hold(connection, shares=WITH_A_FEE)

    part(connection, first + 1, "20")

    assert wallet_of(connection, PLATFORM) == Wallet(balance_minor=2_000, pending_earnings_minor=10_000)
    assert wallet_of(connection, PAYEE) == Wallet(pending_earnings_minor=88_000)


def test_only_an_admin_releases_a_part_of_a_reserve(connection: Connection) -> None:
    """By the reserve's id; its payee is notified."""
    first = place_hold(connection, shares=WITH_A_FEE)
    reserve = first + 2

    with pytest.raises(NotAllowed, match=f"hold {reserve}: is a reserve; only an admin"):
        part(connection, reserve, "20")
    part(connection, reserve, "20", by=ADMIN, as_admin=True)

    assert wallet_of(connection, PAYEE) == Wallet(balance_minor=2_000, pending_earnings_minor=86_000)
    notified = select(notification.c.hold_id).where(notification.c.type == "PAYMENT_RELEASED")
    assert connection.scalars(notified).all() == [reserve]


def test_largest_part_is_the_sum_without_the_reserve(connection: Connection) -> None:
    """All of the 900 is an ordinary early release; 900.01 is refused with the held amount."""
    first = place_hold(connection, shares=WITH_A_FEE)

    with pytest.raises(InsufficientFunds, match=r"is above the 900\.00 that it holds with its shares$"):
        part(connection, first, "900.01")
    released = part(connection, first, "900")

    assert (released.holds_released, released.parts_released, released.left_minor) == (2, 0, {})
    assert state_of(connection, first + 2) is HoldState.BUFFERED
    assert reconcile(connection) == []


def test_frozen_share_refuses_a_part_of_the_earning(connection: Connection) -> None:
    """All or nothing."""
    first = place_hold(connection, shares=WITH_A_FEE)
    freeze_hold(connection, hold_id=first + 1, kind=FreezeKind.RISK, by=ADMIN, reason="a look", now=NOON)

    with pytest.raises(Exception, match=f"^hold {first + 1}: cannot release a part early from FROZEN"):
        part(connection, first, "90")

    assert wallet_of(connection, PAYEE).balance_minor == 0


def test_owner_of_a_fee_is_notified_of_a_part_on_request(connection: Connection) -> None:
    """As for every other release of a fee."""
    first = place_hold(connection, shares=WITH_A_FEE)
    part(connection, first, "90")
    change_contact(connection, owner=PLATFORM, changes={"notify_of_shares": True}, now=NOON)

    part(connection, first, "90", reference="part-2")

    notified = select(notification.c.owner, notification.c.amount_minor).where(
        notification.c.type == "PAYMENT_RELEASED"
    )
    assert sorted(tuple(row) for row in connection.execute(notified)) == [
        (PLATFORM, 1_200),
        (PAYEE, 7_800),
        (PAYEE, 7_800),
    ]
