"""A freeze by the id of an earning's own hold covers all its unsettled shares, and is closed as one."""

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, select

from buffer_pipeline.audit.reconcile import reconcile
from buffer_pipeline.backjob import approve_backjob, reject_backjob
from buffer_pipeline.errors import FreezeRefused, ReferenceConflict, StateRefused
from buffer_pipeline.freeze import Freeze, freeze_hold, unfreeze_hold
from buffer_pipeline.hold import FreezeKind, HoldState
from buffer_pipeline.notifications.contact import change_contact
from buffer_pipeline.release import release_early, release_matured
from buffer_pipeline.tables import hold_freeze
from buffer_pipeline_tests.support.backjobs import decide, request
from buffer_pipeline_tests.support.builders import (
    ADMIN,
    DAY_7,
    NOON,
    PAYEE,
    PAYER,
    WITH_A_FEE,
    all_at_once,
    books,
    notifications_of,
    one_after_the_other,
    open_freezes,
    place_hold,
    state_of,
)
from buffer_pipeline_tests.support.earnings import OF_A_FEW_UNITS
from buffer_pipeline_tests.support.refunds import refund
from buffer_pipeline_tests.support.rules import shares_of

DAY = timedelta(days=1)


def freeze(connection: Connection, hold_id: int, **changes: Any) -> Freeze:
    """Freeze as RISK, with some arguments changed."""
    arguments = {"kind": FreezeKind.RISK, "by": "risk-2", "reason": "a look", "now": NOON}
    return freeze_hold(connection, hold_id=hold_id, **{**arguments, **changes})


def unfreeze(connection: Connection, freeze_id: int, **changes: Any) -> Freeze:
    """Close a freeze, with some arguments changed."""
    arguments = {"by": "risk-2", "reason": "fine", "now": NOON}
    return unfreeze_hold(connection, freeze_id=freeze_id, **{**arguments, **changes})


def place_shares(connection: Connection) -> list[int]:
    """Add an earning with a fee and a reserve; return the holds, the payee's first."""
    first = place_hold(connection, shares=WITH_A_FEE)
    shares = shares_of(connection, first)
    return [first, shares["FEE"], shares["RESERVE"]]


def states(connection: Connection, hold_ids: list[int]) -> list[str]:
    """Return the states of holds."""
    return [state_of(connection, hold_id) for hold_id in hold_ids]


def freeze_rows(connection: Connection) -> list[dict[str, Any]]:
    """Return the stored freezes, oldest first."""
    return [
        dict(row)
        for row in connection.execute(select(hold_freeze).order_by(hold_freeze.c.freeze_id)).mappings()
    ]


def test_a_freeze_of_an_earning_covers_all_of_its_shares(connection: Connection) -> None:
    """Payee's share, fee and reserve, each with a freeze with who and why."""
    shares = place_shares(connection)

    frozen = freeze(connection, shares[0], reference="case-1")

    assert (frozen.hold_id, frozen.hold_ids) == (shares[0], tuple(shares))
    assert (frozen.state, frozen.replayed) == (HoldState.FROZEN, False)
    assert states(connection, shares) == ["FROZEN"] * 3
    rows = freeze_rows(connection)
    assert [(row["hold_id"], row["kind"], row["opened_by"], row["reason"]) for row in rows] == [
        (hold_id, "RISK", "risk-2", "a look") for hold_id in shares
    ]
    assert [row["earning_id"] for row in rows] == [shares[0]] * 3
    assert [row["earning_freeze_id"] for row in rows] == [None, frozen.freeze_id, frozen.freeze_id]
    assert [row["reference"] for row in rows] == ["case-1", None, None]
    assert release_matured(connection, now=NOON + 100 * DAY, batch_limit=10).holds_released == 0
    assert reconcile(connection) == []


def test_a_freeze_of_another_share_covers_that_share_only(connection: Connection) -> None:
    """The fee is frozen by its own id, and the rest of the earning is released."""
    first, fee, reserve = place_shares(connection)

    frozen = freeze(connection, fee)

    assert (frozen.hold_id, frozen.hold_ids) == (fee, (fee,))
    assert states(connection, [first, fee, reserve]) == ["BUFFERED", "FROZEN", "BUFFERED"]
    assert freeze_rows(connection)[0]["earning_id"] is None


def test_freeze_of_an_earning_without_shares_covers_one_hold(connection: Connection) -> None:
    """It belongs to no earning."""
    hold_id = place_hold(connection)

    frozen = freeze(connection, hold_id)

    assert frozen.hold_ids == (hold_id,)
    assert freeze_rows(connection)[0]["earning_id"] is None


def test_closing_the_freeze_of_an_earning_frees_all_shares(connection: Connection) -> None:
    """They are buffered, and only the first freeze has the reference."""
    shares = place_shares(connection)
    frozen = freeze(connection, shares[0])

    closed = unfreeze(connection, frozen.freeze_id, reference="case-1-closed")

    assert closed == Freeze(
        freeze_id=frozen.freeze_id, hold_id=shares[0], state=HoldState.BUFFERED, hold_ids=tuple(shares)
    )
    assert states(connection, shares) == ["BUFFERED"] * 3
    rows = freeze_rows(connection)
    assert [(row["closed_by"], row["closing_reason"], row["closed_at"]) for row in rows] == [
        ("risk-2", "fine", NOON)
    ] * 3
    assert [row["closing_reference"] for row in rows] == ["case-1-closed", None, None]
    assert reconcile(connection) == []


def test_a_share_that_another_freeze_covers_stays_frozen(connection: Connection) -> None:
    """The fee's own freeze stays open."""
    first, fee, reserve = place_shares(connection)
    own = freeze(connection, fee)
    frozen = freeze(connection, first)

    unfreeze(connection, frozen.freeze_id)

    assert states(connection, [first, fee, reserve]) == ["BUFFERED", "FROZEN", "BUFFERED"]
    assert unfreeze(connection, own.freeze_id).state is HoldState.BUFFERED


def test_a_shares_part_of_a_freeze_is_not_closed_by_itself(connection: Connection) -> None:
    """The refusal names the freeze to close, and nothing is written."""
    first, fee, _ = place_shares(connection)
    frozen = freeze(connection, first)
    of_fee = freeze_rows(connection)[1]["freeze_id"]
    before = books(connection)

    with pytest.raises(FreezeRefused) as refusal:
        unfreeze(connection, of_fee)

    assert str(refusal.value) == (
        f"freeze {of_fee}: belongs to freeze {frozen.freeze_id} of the earning of hold {first}; close that"
    )
    assert (refusal.value.hold_id, refusal.value.freeze_ids) == (fee, (of_fee, frozen.freeze_id))
    assert refusal.value.allowed == ("unfreeze_hold",)
    assert books(connection) == before


def test_a_freeze_of_an_earning_covers_what_is_unsettled(connection: Connection) -> None:
    """After the release of payee's share and fee, it covers the reserve."""
    first, _, reserve = place_shares(connection)
    release_matured(connection, now=DAY_7, batch_limit=10)

    frozen = freeze(connection, first, now=DAY_7, reference="case-1")

    assert (frozen.hold_id, frozen.hold_ids, frozen.state) == (first, (reserve,), HoldState.FROZEN)
    assert freeze(connection, first, now=DAY_7, reference="case-1").replayed
    with pytest.raises(ReferenceConflict):
        freeze(connection, reserve, now=DAY_7, reference="case-1")
    closed = unfreeze(connection, frozen.freeze_id, now=DAY_7)
    assert (closed.hold_id, closed.hold_ids, closed.state) == (first, (reserve,), HoldState.BUFFERED)
    assert reconcile(connection) == []


def test_a_freeze_of_an_earning_that_is_settled_is_refused(connection: Connection) -> None:
    """The refusal names the earning's own hold."""
    shares = place_shares(connection)
    for hold_id in (shares[0], shares[2]):
        release_early(connection, hold_id=hold_id, by=ADMIN, as_admin=True, reason="trusted", now=NOON)

    with pytest.raises(StateRefused, match=rf"^hold {shares[0]}: cannot freeze from RELEASED"):
        freeze(connection, shares[0])


def test_freeze_of_an_earning_is_replayed(connection: Connection) -> None:
    """Nothing is written. With another share's id it is refused."""
    first, fee, reserve = place_shares(connection)
    frozen = freeze(connection, first, reference="case-1")
    before = books(connection)

    again = freeze(connection, first, reference="case-1")

    assert (again.freeze_id, again.hold_ids, again.replayed) == (
        frozen.freeze_id,
        (first, fee, reserve),
        True,
    )
    with pytest.raises(ReferenceConflict, match=rf"on hold {first}$"):
        freeze(connection, fee, reference="case-1")
    assert books(connection) == before


def test_closing_of_an_earnings_freeze_is_replayed(connection: Connection) -> None:
    """Also if the first hold was refunded before, so that another one has the reference."""
    first = place_hold(connection, amount="0.05", shares=OF_A_FEW_UNITS)
    shares = shares_of(connection, first)
    holds = [first, shares["FEE"], shares["TAX"]]
    frozen = freeze(connection, first)
    refund(connection, first, amount="0.03")
    assert states(connection, holds) == ["REFUNDED", "FROZEN", "FROZEN"]
    closed = unfreeze(connection, frozen.freeze_id, reference="case-1-closed")
    before = books(connection)

    again = unfreeze(connection, frozen.freeze_id, reference="case-1-closed")

    assert (closed.hold_ids, closed.state) == (tuple(holds), HoldState.REFUNDED)
    assert (again.freeze_id, again.hold_ids, again.replayed) == (closed.freeze_id, closed.hold_ids, True)
    assert states(connection, holds[1:]) == ["BUFFERED", "BUFFERED"]
    assert books(connection) == before
    with pytest.raises(FreezeRefused, match="closed since"):
        unfreeze(connection, frozen.freeze_id)
    assert reconcile(connection) == []


def test_a_payee_is_notified_once_of_a_freeze_of_an_earning(connection: Connection) -> None:
    """And once of its end, not of the reserve. The fee's owner is notified on request."""
    first, _, _ = place_shares(connection)
    change_contact(connection, owner="platform", changes={"notify_of_shares": True}, now=NOON)

    frozen = freeze(connection, first)
    unfreeze(connection, frozen.freeze_id)

    assert notifications_of(connection, PAYEE) == ["PAYMENT_PENDING", "PAYMENT_FROZEN", "PAYMENT_RESUMED"]
    assert notifications_of(connection, "platform") == ["PAYMENT_FROZEN", "PAYMENT_RESUMED"]


def test_a_freeze_of_an_earning_stacks_with_a_backjob(connection: Connection) -> None:
    """After a rejection all shares stay frozen, without a cooldown."""
    shares = place_shares(connection)
    opened = request(connection)
    frozen = freeze(connection, shares[0])

    decide(connection, reject_backjob, opened.backjob_id)

    assert [open_freezes(connection, hold_id) for hold_id in shares] == [["RISK"]] * 3
    unfreeze(connection, frozen.freeze_id)
    assert states(connection, shares) == ["BUFFERED"] * 3


def test_freeze_of_an_earning_refuses_an_approval(connection: Connection) -> None:
    """The refusal names the freeze once, and each of its holds."""
    first, fee, reserve = place_shares(connection)
    opened = request(connection)
    frozen = freeze(connection, first)

    with pytest.raises(FreezeRefused) as refusal:
        decide(connection, approve_backjob, opened.backjob_id)

    assert refusal.value.freeze_ids == (frozen.freeze_id,)
    for hold_id in (first, fee, reserve):
        assert f"RISK freeze {frozen.freeze_id} on hold {hold_id}" in str(refusal.value)


def test_two_freezes_of_an_earning_are_closed_one_by_one(connection: Connection) -> None:
    """The shares are buffered when both are closed."""
    shares = place_shares(connection)
    one, two = freeze(connection, shares[0]), freeze(connection, shares[0], kind=FreezeKind.ADMIN)

    after_one = unfreeze(connection, one.freeze_id)
    after_two = unfreeze(connection, two.freeze_id)

    assert (after_one.state, after_two.state) == (HoldState.FROZEN, HoldState.BUFFERED)
    assert states(connection, shares) == ["BUFFERED"] * 3


def test_a_freeze_of_an_earning_waits_for_one_of_its_shares(engine: Engine) -> None:
    """An early release of the fee commits first, and the freeze covers the rest."""
    with engine.begin() as connection:
        first, fee, reserve = place_shares(connection)

    _, frozen = one_after_the_other(
        engine,
        lambda connection: release_early(connection, hold_id=fee, by=PAYER, reason="fine", now=NOON),
        lambda connection: freeze(connection, first),
    )

    assert isinstance(frozen, Freeze)
    assert frozen.hold_ids == (first, reserve)


def test_concurrent_closings_of_an_earnings_freezes_free_all_shares(engine: Engine) -> None:
    """The second finds the other freeze closed."""
    with engine.begin() as connection:
        shares = place_shares(connection)
        one, two = freeze(connection, shares[0]), freeze(connection, shares[0])

    all_at_once(
        engine,
        lambda connection: unfreeze(connection, one.freeze_id),
        lambda connection: unfreeze(connection, two.freeze_id),
    )

    with engine.connect() as connection:
        assert states(connection, shares) == ["BUFFERED"] * 3
        assert reconcile(connection) == []
