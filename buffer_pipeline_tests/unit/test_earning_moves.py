"""A move by the id of an earning's own hold also moves the unsettled shares with the same date."""

from datetime import datetime, timedelta
from typing import Any, Final

import pytest
from sqlalchemy import Connection, Engine, select, text
from sqlalchemy.exc import OperationalError

from buffer_pipeline.audit.reconcile import reconcile
from buffer_pipeline.backjob import approve_backjob
from buffer_pipeline.errors import DateRefused, NotAllowed, ReferenceConflict, StateRefused
from buffer_pipeline.freeze import freeze_hold
from buffer_pipeline.hold import FreezeKind, HoldState
from buffer_pipeline.notifications.contact import change_contact
from buffer_pipeline.policy import RESCHEDULE_DAYS_MAX, Policy
from buffer_pipeline.release import release_early, release_matured
from buffer_pipeline.reports.audit_trail import audit_trail
from buffer_pipeline.reschedule import Rescheduled, reschedule_hold
from buffer_pipeline.shares import Share, ShareKind
from buffer_pipeline.tables import audit_line
from buffer_pipeline_tests.support.backjobs import decide, request
from buffer_pipeline_tests.support.builders import (
    ADMIN,
    DAY_7,
    NOON,
    PAYEE,
    PAYER,
    WITH_A_FEE,
    books,
    notifications_of,
    one_after_the_other,
    place_hold,
    release_date_of,
    state_of,
)
from buffer_pipeline_tests.support.rules import shares_of

DAY: Final = timedelta(days=1)
DAY_30: Final = NOON + 30 * DAY
DAY_90: Final = NOON + 90 * DAY
WITH_A_TAX: Final = (*WITH_A_FEE, Share(kind=ShareKind.TAX, owner="treasury", percent=2, days=0))


def move(connection: Connection, hold_id: int, to: datetime = DAY_30, **changes: Any) -> Rescheduled:
    """Move as an admin, with some arguments changed."""
    arguments = {"by": ADMIN, "as_admin": True, "reason": "abroad", "now": NOON}
    return reschedule_hold(connection, hold_id=hold_id, to=to, **{**arguments, **changes})


def place_shares(connection: Connection) -> list[int]:
    """Add an earning with a fee, a reserve and a tax that is due at once; return their holds in this order,
    after the payee's.
    """
    first = place_hold(connection, shares=WITH_A_TAX)
    shares = shares_of(connection, first)
    return [first, shares["FEE"], shares["RESERVE"], shares["TAX"]]


def dates(connection: Connection, hold_ids: list[int]) -> list[datetime]:
    """Return the release dates of holds."""
    return [release_date_of(connection, hold_id) for hold_id in hold_ids]


def test_move_includes_shares_with_the_same_date(connection: Connection) -> None:
    """The fee moves; reserve and tax, with other dates, stay."""
    shares = place_shares(connection)
    first, fee, _, _ = shares

    moved = move(connection, first)

    assert moved == Rescheduled(hold_id=first, release_date=DAY_30, was=DAY_7, hold_ids=(first, fee))
    assert dates(connection, shares) == [DAY_30, DAY_30, DAY_90, NOON]
    assert reconcile(connection) == []


def test_another_share_moves_alone(connection: Connection) -> None:
    """By its own id, although the payee's share has the same date."""
    shares = place_shares(connection)
    fee = shares[1]

    moved = move(connection, fee)

    assert (moved.hold_id, moved.hold_ids) == (fee, (fee,))
    assert dates(connection, shares) == [DAY_7, DAY_30, DAY_90, NOON]
    assert reconcile(connection) == []


def test_move_includes_only_shares_that_still_have_the_same_date(connection: Connection) -> None:
    """Also a share that was moved to the payee's date."""
    first, fee, reserve, tax = place_shares(connection)
    move(connection, fee, NOON + 20 * DAY)
    move(connection, reserve, DAY_7)

    moved = move(connection, first)

    assert moved.hold_ids == (first, reserve)
    assert dates(connection, [first, fee, reserve, tax]) == [DAY_30, NOON + 20 * DAY, DAY_30, NOON]
    assert reconcile(connection) == []


def test_backjob_in_the_longer_window_refunds_the_fee(connection: Connection) -> None:
    """The fee is not released at its first date, and an approval refunds it."""
    first, fee, reserve, _ = place_shares(connection)
    move(connection, first)
    release_matured(connection, now=NOON + 9 * DAY, batch_limit=10)
    opened = request(connection, now=NOON + 10 * DAY)

    decide(connection, approve_backjob, opened.backjob_id, now=NOON + 10 * DAY)

    assert [state_of(connection, hold_id) for hold_id in (first, fee, reserve)] == ["REFUNDED"] * 3
    assert reconcile(connection) == []


def test_the_payer_moves_the_shares_to_an_earlier_date(connection: Connection) -> None:
    """Not to before the minimum days; then nothing is moved."""
    shares = place_shares(connection)
    before = books(connection)
    arguments: dict[str, Any] = {"by": PAYER, "as_admin": False, "policy": Policy(min_days=3)}

    with pytest.raises(DateRefused, match="at the earliest"):
        move(connection, shares[0], NOON + 2 * DAY, **arguments)
    with pytest.raises(NotAllowed):
        move(connection, shares[0], DAY_30, **arguments)
    assert books(connection) == before
    move(connection, shares[0], NOON + 3 * DAY, **arguments)

    assert dates(connection, shares) == [NOON + 3 * DAY, NOON + 3 * DAY, DAY_90, NOON]


def test_one_share_beyond_the_cap_refuses_all(connection: Connection) -> None:
    """The tax was due at once and was moved to the payee's date; its cap limits both."""
    first, fee, _, tax = place_shares(connection)
    move(connection, tax, DAY_7)
    cap = NOON + RESCHEDULE_DAYS_MAX * DAY
    before = books(connection)

    with pytest.raises(DateRefused) as refusal:
        move(connection, first, cap + DAY, reference="move-1")

    assert str(refusal.value) == (
        f"hold {tax}, which moves with hold {first}: cannot be moved to {(cap + DAY).isoformat()};"
        f" at most 90 days after its original release date, which is until {cap.isoformat()}"
    )
    assert refusal.value.hold_id == tax
    assert books(connection) == before
    assert move(connection, first, cap).hold_ids == (first, fee, tax)


def test_settled_share_is_not_moved(connection: Connection) -> None:
    """Unsettled ones are. A settled hold that is named is refused, even if a share of it waits."""
    first, fee, reserve, _ = place_shares(connection)
    release_early(connection, hold_id=fee, by=ADMIN, as_admin=True, reason="trusted", now=NOON)

    moved = move(connection, first)

    assert moved.hold_ids == (first,)
    release_early(connection, hold_id=first, by=ADMIN, as_admin=True, reason="trusted", now=NOON)
    assert state_of(connection, reserve) is HoldState.BUFFERED
    with pytest.raises(StateRefused, match=rf"^hold {first}: cannot reschedule from RELEASED"):
        move(connection, first, NOON + 40 * DAY)
    assert reconcile(connection) == []


def test_a_frozen_share_moves_and_stays_frozen(connection: Connection) -> None:
    """Its date counts once it is buffered."""
    first, fee, _, _ = place_shares(connection)
    freeze_hold(connection, hold_id=fee, kind=FreezeKind.RISK, by=ADMIN, reason="a look", now=NOON)

    moved = move(connection, first)

    assert moved.hold_ids == (first, fee)
    assert (state_of(connection, fee), release_date_of(connection, fee)) == (HoldState.FROZEN, DAY_30)
    assert reconcile(connection) == []


def test_each_moved_share_has_a_line_in_the_audit_trail(connection: Connection) -> None:
    """With the holds that moved together. Only the first one has the reference."""
    first, fee, _, _ = place_shares(connection)

    move(connection, first, reference="move-1")

    rows = connection.execute(select(audit_line).order_by(audit_line.c.audit_id)).mappings().all()
    assert [(row["hold_id"], row["owner"], row["reference"]) for row in rows] == [
        (first, PAYEE, "move-1"),
        (fee, "platform", None),
    ]
    assert [(row["by"], row["reason"], row["from_date"], row["to_date"]) for row in rows] == [
        (ADMIN, "abroad", DAY_7, DAY_30)
    ] * 2
    assert [row["detail"] for row in rows] == [{"as_admin": True, "hold_ids": [first, fee]}] * 2
    (line,) = audit_trail(connection, hold_id=fee)
    assert (line["verb"], line["detail"]["hold_ids"]) == ("RESCHEDULE", [first, fee])


def test_move_of_an_earning_is_replayed(connection: Connection) -> None:
    """The same holds are returned and nothing is written, whatever has happened to them since."""
    first, fee, _, _ = place_shares(connection)
    moved = move(connection, first, reference="move-1")
    release_early(connection, hold_id=first, by=ADMIN, as_admin=True, reason="trusted", now=NOON)
    before = books(connection)

    again = move(connection, first, reference="move-1")

    assert again == Rescheduled(
        hold_id=first, release_date=DAY_30, was=DAY_7, hold_ids=moved.hold_ids, replayed=True
    )
    with pytest.raises(ReferenceConflict, match=rf"already used for the move of hold {first} "):
        move(connection, fee, reference="move-1")
    assert books(connection) == before


def test_payee_is_notified_once_of_a_move_of_an_earning(connection: Connection) -> None:
    """Also if the reserve moves. The owner of the fee is notified on request."""
    first, fee, reserve, tax = place_shares(connection)
    change_contact(connection, owner="platform", changes={"notify_of_shares": True}, now=NOON)
    for hold_id in (reserve, tax):
        move(connection, hold_id, DAY_7)

    moved = move(connection, first)

    assert moved.hold_ids == (first, fee, reserve, tax)
    # Once when the reserve was moved by its own id, and once for the earning.
    assert notifications_of(connection, PAYEE) == ["PAYMENT_PENDING", *["PAYMENT_RESCHEDULED"] * 2]
    assert notifications_of(connection, "platform") == ["PAYMENT_RESCHEDULED"]
    assert notifications_of(connection, "treasury") == []


def test_a_move_of_an_earning_waits_for_one_of_its_shares(engine: Engine) -> None:
    """The fee is moved first, and then has another date than the payee's share."""
    with engine.begin() as connection:
        first, fee, _, _ = place_shares(connection)

    _, moved = one_after_the_other(
        engine,
        lambda connection: move(connection, fee, NOON + 20 * DAY),
        lambda connection: move(connection, first),
    )

    assert isinstance(moved, Rescheduled)
    assert moved.hold_ids == (first,)
    with engine.connect() as connection:
        assert dates(connection, [first, fee]) == [DAY_30, NOON + 20 * DAY]
        assert reconcile(connection) == []


@pytest.mark.parametrize("share_first", [False, True])
def test_an_older_snapshot_moves_nothing(engine: Engine, share_first: bool) -> None:
    """A move of the earning and one of its fee conflict, whichever commits first."""
    with engine.begin() as connection:
        first, fee, _, _ = place_shares(connection)
    committed, late = (fee, first) if share_first else (first, fee)

    with (
        engine.connect().execution_options(isolation_level="REPEATABLE READ") as older,
        older.begin(),
    ):
        older.execute(text("SELECT count(*) FROM buffer.wallet"))
        with engine.begin() as connection:
            move(connection, committed)
        with pytest.raises(OperationalError, match="could not serialize access"):
            move(older, late, NOON + 20 * DAY)

    with engine.connect() as connection:
        assert reconcile(connection) == []
