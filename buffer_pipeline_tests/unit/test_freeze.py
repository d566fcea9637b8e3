"""Rule 8: ADMIN and RISK freezes stack, and closing the last one buffers the hold."""

from typing import Any

import pytest
from sqlalchemy import Connection, Engine, select, text
from sqlalchemy.exc import OperationalError

from buffer_pipeline.audit.reconcile import reconcile
from buffer_pipeline.backjob import approve_backjob, reject_backjob, request_backjob
from buffer_pipeline.errors import FreezeRefused, InvalidInput, NotFound, ReferenceConflict, StateRefused
from buffer_pipeline.freeze import Freeze, freeze_hold, unfreeze_hold
from buffer_pipeline.hold import FreezeKind, HoldState
from buffer_pipeline.release import release_matured
from buffer_pipeline.tables import hold_freeze
from buffer_pipeline_tests.support.builders import (
    ADMIN,
    DAY_7,
    JOB,
    NOON,
    PAYEE,
    PAYER,
    Wallet,
    all_at_once,
    books,
    hold_row,
    notifications_of,
    one_after_the_other,
    open_freezes,
    place_hold,
    state_of,
    wallet_of,
)


def freeze(connection: Connection, hold_id: int, **changes: Any) -> Freeze:
    """Freeze as an admin, with some arguments changed."""
    arguments = {"kind": FreezeKind.ADMIN, "by": ADMIN, "reason": "a look", "now": NOON}
    return freeze_hold(connection, hold_id=hold_id, **{**arguments, **changes})


def unfreeze(connection: Connection, freeze_id: int, **changes: Any) -> Freeze:
    """Close a freeze as an admin, with some arguments changed."""
    arguments = {"by": ADMIN, "reason": "fine", "now": NOON}
    return unfreeze_hold(connection, freeze_id=freeze_id, **{**arguments, **changes})


@pytest.mark.parametrize("kind", [FreezeKind.ADMIN, FreezeKind.RISK])
def test_freeze_stops_a_hold_and_moves_no_money(connection: Connection, kind: FreezeKind) -> None:
    """A frozen hold keeps its date and its money, and its payee is notified."""
    hold_id = place_hold(connection)

    frozen = freeze(connection, hold_id, kind=kind)

    row = hold_row(connection, hold_id)
    assert (frozen.hold_id, frozen.state) == (hold_id, HoldState.FROZEN)
    assert (row["state"], row["release_date"], row["settled_at"]) == ("FROZEN", DAY_7, None)
    assert open_freezes(connection, hold_id) == [kind]
    assert wallet_of(connection, PAYEE) == Wallet(pending_earnings_minor=100_000)
    assert notifications_of(connection, PAYEE) == ["PAYMENT_PENDING", "PAYMENT_FROZEN"]


def test_freeze_says_who_why_and_when(connection: Connection) -> None:
    """Opening and closing each have a person, reason and time."""
    frozen = freeze(connection, place_hold(connection), reason="same card twice")

    unfreeze(connection, frozen.freeze_id, by="admin-2", reason="two friends", now=DAY_7)

    row = connection.execute(select(hold_freeze)).mappings().one()
    assert (row["opened_by"], row["reason"], row["opened_at"]) == (ADMIN, "same card twice", NOON)
    assert (row["closed_by"], row["closing_reason"], row["closed_at"]) == ("admin-2", "two friends", DAY_7)


def test_freeze_without_notification(connection: Connection) -> None:
    """With notify=False nobody is notified."""
    freeze(connection, place_hold(connection), notify=False)

    assert notifications_of(connection, PAYEE) == ["PAYMENT_PENDING"]


def test_matured_hold_that_nobody_released_can_be_frozen(connection: Connection) -> None:
    """The window is the client's. An admin may freeze any unsettled hold."""
    hold_id = place_hold(connection)

    freeze(connection, hold_id, now=DAY_7)

    assert release_matured(connection, now=DAY_7, batch_limit=10).holds_released == 0
    assert state_of(connection, hold_id) is HoldState.FROZEN


def test_freezes_stack(connection: Connection) -> None:
    """Three freezes, two of one kind, are open together. The payee is notified of the first."""
    hold_id = place_hold(connection)
    freezes = [freeze(connection, hold_id, kind=kind) for kind in ("ADMIN", "RISK", "ADMIN")]

    states = [unfreeze(connection, frozen.freeze_id).state for frozen in freezes[:2]]

    assert states == [HoldState.FROZEN, HoldState.FROZEN]
    assert open_freezes(connection, hold_id) == ["ADMIN"]
    assert state_of(connection, hold_id) is HoldState.FROZEN
    assert notifications_of(connection, PAYEE) == ["PAYMENT_PENDING", "PAYMENT_FROZEN"]


def test_closing_the_last_freeze_buffers_the_hold_on_its_date(connection: Connection) -> None:
    """And its payee is notified."""
    hold_id = place_hold(connection)
    first = freeze(connection, hold_id)
    last = freeze(connection, hold_id, kind=FreezeKind.RISK)
    unfreeze(connection, last.freeze_id)

    resumed = unfreeze(connection, first.freeze_id)

    row = hold_row(connection, hold_id)
    assert (resumed.hold_id, resumed.state) == (hold_id, HoldState.BUFFERED)
    assert (row["state"], row["release_date"]) == ("BUFFERED", DAY_7)
    assert notifications_of(connection, PAYEE)[-1] == "PAYMENT_RESUMED"


def test_unfreezing_leaves_a_backjobs_freeze(connection: Connection) -> None:
    """A hold with an open backjob stays frozen until that is decided."""
    hold_id = place_hold(connection)
    frozen = freeze(connection, hold_id)
    backjob = request_backjob(connection, job=JOB, by=PAYER, reason="hm", now=NOON)

    still = unfreeze(connection, frozen.freeze_id)

    assert still.state is HoldState.FROZEN
    assert open_freezes(connection, hold_id) == ["BACKJOB"]
    reject_backjob(connection, backjob_id=backjob.backjob_id, by=ADMIN, reason="no", now=NOON)
    assert state_of(connection, hold_id) is HoldState.BUFFERED


@pytest.mark.parametrize("state", [HoldState.RELEASED, HoldState.REFUNDED])
def test_settled_hold_refuses_a_freeze(connection: Connection, state: HoldState) -> None:
    """The refusal has the hold, its state and what is allowed."""
    hold_id = place_hold(connection, state=state)
    before = books(connection)

    with pytest.raises(StateRefused) as refusal:
        freeze(connection, hold_id)

    assert str(refusal.value) == f"hold {hold_id}: cannot freeze from {state}; that needs BUFFERED or FROZEN"
    assert (refusal.value.hold_id, refusal.value.state) == (hold_id, state)
    assert books(connection) == before


@pytest.mark.parametrize("unknown", [404, 0, -1, 2**63])
def test_unknown_hold_and_freeze_are_refused(connection: Connection, unknown: int) -> None:
    """By their ids, also numbers out of range."""
    with pytest.raises(NotFound, match=f"hold {unknown}: does not exist"):
        freeze(connection, unknown)
    with pytest.raises(NotFound, match=f"freeze {unknown}: does not exist"):
        unfreeze(connection, unknown)


def test_backjob_freeze_comes_only_with_a_backjob(connection: Connection) -> None:
    """freeze_hold refuses the kind BACKJOB."""
    hold_id = place_hold(connection)
    before = books(connection)

    with pytest.raises(InvalidInput, match=f"freeze on hold {hold_id}: a BACKJOB freeze comes with"):
        freeze(connection, hold_id, kind=FreezeKind.BACKJOB)

    assert books(connection) == before


@pytest.mark.parametrize("kind", ["BACKJOB", "WHIM", ""])
def test_unknown_kind_in_text_is_refused(connection: Connection, kind: str) -> None:
    """As any other bad input."""
    hold_id = place_hold(connection)
    before = books(connection)

    with pytest.raises(InvalidInput):
        freeze(connection, hold_id, kind=kind)

    assert books(connection) == before


def test_backjob_freeze_is_closed_only_with_its_backjob(connection: Connection) -> None:
    """The refusal names the backjob."""
    hold_id = place_hold(connection)
    backjob = request_backjob(connection, job=JOB, by=PAYER, reason="hm", now=NOON)
    freeze_id = connection.execute(select(hold_freeze.c.freeze_id)).scalar_one()
    before = books(connection)

    with pytest.raises(FreezeRefused) as refusal:
        unfreeze(connection, freeze_id)

    assert str(refusal.value) == (
        f"freeze {freeze_id}: belongs to backjob {backjob.backjob_id}; reject, approve or withdraw that"
    )
    assert refusal.value.hold_id == hold_id
    assert refusal.value.allowed == ("reject", "approve", "withdraw")
    assert books(connection) == before
    assert state_of(connection, hold_id) is HoldState.FROZEN


def test_conflict_of_a_closing_names_the_hold(connection: Connection) -> None:
    """The hold of the freeze that the reference closed."""
    hold_id = place_hold(connection)
    first, second = freeze(connection, hold_id), freeze(connection, hold_id)
    unfreeze(connection, first.freeze_id, reference="case-1")

    with pytest.raises(ReferenceConflict, match=f"closing of freeze {first.freeze_id} by ") as refusal:
        unfreeze(connection, second.freeze_id, reference="case-1")

    assert refusal.value.hold_id == hold_id


def test_closed_freeze_is_not_closed_again(connection: Connection) -> None:
    """The refusal has the time of the closing, and nothing is written."""
    frozen = freeze(connection, place_hold(connection))
    unfreeze(connection, frozen.freeze_id)
    before = books(connection)

    with pytest.raises(FreezeRefused, match=f"freeze {frozen.freeze_id}: closed since 2026-03-02T12:00:00"):
        unfreeze(connection, frozen.freeze_id)

    assert books(connection) == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"by": ""}, "by: must not be empty"),
        ({"by": "x" * 201}, "by: 201 characters"),
        ({"reason": ""}, "reason: must not be empty"),
        ({"reason": "a\x00b"}, "control character"),
        ({"reason": "x" * 2001}, "reason: 2001 characters"),
        ({"now": NOON.replace(tzinfo=None)}, "now .* no time zone"),
    ],
)
def test_bad_input_freezes_and_frees_nothing(
    connection: Connection, change: dict[str, Any], message: str
) -> None:
    """Of a freeze and of its closing."""
    hold_id = place_hold(connection)
    frozen = freeze(connection, hold_id)
    before = books(connection)

    with pytest.raises(InvalidInput, match=message):
        freeze(connection, hold_id, **change)
    with pytest.raises(InvalidInput, match=message):
        unfreeze(connection, frozen.freeze_id, **change)

    assert books(connection) == before


def test_concurrent_freezes_are_all_open(engine: Engine) -> None:
    """And the payee is notified once."""
    with engine.begin() as connection:
        hold_id = place_hold(connection)

    outcomes = all_at_once(engine, *[lambda connection: freeze(connection, hold_id)] * 4)

    assert all(isinstance(outcome, Freeze) for outcome in outcomes)
    with engine.connect() as connection:
        assert open_freezes(connection, hold_id) == ["ADMIN"] * 4
        assert notifications_of(connection, PAYEE).count("PAYMENT_FROZEN") == 1


def test_concurrent_closings_of_a_freeze_close_it_once(engine: Engine) -> None:
    """The second is refused."""
    with engine.begin() as connection:
        frozen = freeze(connection, place_hold(connection))

    first, refusal = one_after_the_other(
        engine, *[lambda connection: unfreeze(connection, frozen.freeze_id)] * 2
    )

    assert first.state is HoldState.BUFFERED
    assert isinstance(refusal, FreezeRefused)
    with engine.connect() as connection:
        assert notifications_of(connection, PAYEE).count("PAYMENT_RESUMED") == 1


def test_concurrent_closings_of_two_last_freezes_buffer_the_hold(engine: Engine) -> None:
    """Neither closing relies on the other to buffer it."""
    with engine.begin() as connection:
        hold_id = place_hold(connection)
        one = freeze(connection, hold_id)
        other = freeze(connection, hold_id)

    first, second = one_after_the_other(
        engine,
        lambda connection: unfreeze(connection, one.freeze_id),
        lambda connection: unfreeze(connection, other.freeze_id),
    )

    assert first.state is HoldState.FROZEN
    assert isinstance(second, Freeze)
    assert second.state is HoldState.BUFFERED
    with engine.connect() as connection:
        assert state_of(connection, hold_id) is HoldState.BUFFERED


def test_freeze_that_waits_for_the_last_unfreeze_freezes_again(engine: Engine) -> None:
    """It finds the hold buffered."""
    with engine.begin() as connection:
        hold_id = place_hold(connection)
        frozen = freeze(connection, hold_id)

    one_after_the_other(
        engine,
        lambda connection: unfreeze(connection, frozen.freeze_id),
        lambda connection: freeze(connection, hold_id, kind=FreezeKind.RISK),
    )

    with engine.connect() as connection:
        assert open_freezes(connection, hold_id) == ["RISK"]
        assert state_of(connection, hold_id) is HoldState.FROZEN


def test_unfreezing_after_a_freeze_leaves_the_hold_frozen(engine: Engine) -> None:
    """Closing what was the last freeze, after a new one was opened, buffers nothing."""
    with engine.begin() as connection:
        hold_id = place_hold(connection)
        frozen = freeze(connection, hold_id)

    _, still = one_after_the_other(
        engine,
        lambda connection: freeze(connection, hold_id, kind=FreezeKind.RISK),
        lambda connection: unfreeze(connection, frozen.freeze_id),
    )

    assert isinstance(still, Freeze)
    assert still.state is HoldState.FROZEN
    with engine.connect() as connection:
        assert open_freezes(connection, hold_id) == ["RISK"]
        assert state_of(connection, hold_id) is HoldState.FROZEN


def test_a_snapshot_from_before_a_freeze_cannot_resume_the_hold(engine: Engine) -> None:
    """At REPEATABLE READ, a freeze opened meanwhile is not missed."""
    with engine.begin() as connection:
        hold_id = place_hold(connection)
        first = freeze_hold(
            connection, hold_id=hold_id, kind=FreezeKind.ADMIN, by=ADMIN, reason="a look", now=NOON
        )
        backjob = request_backjob(connection, job=JOB, by=PAYER, reason="not as agreed", now=NOON)
        unfreeze_hold(connection, freeze_id=first.freeze_id, by=ADMIN, reason="fine", now=NOON)
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as deciding:
        deciding.execute(text("SELECT count(*) FROM buffer.hold"))
        with engine.begin() as connection:
            freeze_hold(connection, hold_id=hold_id, kind=FreezeKind.RISK, by=ADMIN, reason="hm", now=NOON)

        with pytest.raises(OperationalError) as conflict:
            approve_backjob(deciding, backjob_id=backjob.backjob_id, by=ADMIN, reason="indeed", now=NOON)
        deciding.rollback()

    assert getattr(conflict.value.orig, "sqlstate", None) == "40001"
    with engine.connect() as connection:
        assert state_of(connection, hold_id) is HoldState.FROZEN
        assert reconcile(connection) == []


def test_a_snapshot_from_before_a_backjob_cannot_unfreeze_the_hold(engine: Engine) -> None:
    """At REPEATABLE READ, a backjob opened meanwhile keeps its hold frozen."""
    with engine.begin() as connection:
        hold_id = place_hold(connection)
        first = freeze_hold(
            connection, hold_id=hold_id, kind=FreezeKind.ADMIN, by=ADMIN, reason="a look", now=NOON
        )
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as deciding:
        deciding.execute(text("SELECT count(*) FROM buffer.hold"))
        with engine.begin() as connection:
            request_backjob(connection, job=JOB, by=PAYER, reason="not as agreed", now=NOON)

        with pytest.raises(OperationalError) as conflict:
            unfreeze_hold(deciding, freeze_id=first.freeze_id, by=ADMIN, reason="fine", now=NOON)
        deciding.rollback()

    assert getattr(conflict.value.orig, "sqlstate", None) == "40001"
    with engine.connect() as connection:
        assert state_of(connection, hold_id) is HoldState.FROZEN
        assert reconcile(connection) == []
