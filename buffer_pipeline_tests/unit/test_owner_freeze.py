"""A frozen owner: all their unsettled holds are frozen, and each new one, until they are unfrozen."""

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, select

from buffer_pipeline.audit.reconcile import reconcile
from buffer_pipeline.backjob import reject_backjob, request_backjob
from buffer_pipeline.errors import FreezeRefused, ReferenceConflict, StateRefused
from buffer_pipeline.freeze import freeze_hold, unfreeze_hold
from buffer_pipeline.hold import FreezeKind, HoldState
from buffer_pipeline.intake import AddedHold, add_many_pending_earnings
from buffer_pipeline.owner_freeze import OwnerFreeze
from buffer_pipeline.release import release_early, release_matured
from buffer_pipeline.tables import hold_freeze, owner_freeze
from buffer_pipeline.wallet import deposit, withdraw
from buffer_pipeline_tests.support.builders import (
    ADMIN,
    DAY_7,
    JOB,
    NOON,
    PAYEE,
    PAYER,
    books,
    notifications_of,
    open_freezes,
    place_hold,
    release_date_of,
    state_of,
    wallet_of,
)
from buffer_pipeline_tests.support.earnings import WAYS, Add, earning
from buffer_pipeline_tests.support.owner_freezes import LATER, freeze, freeze_ids, unfreeze


@pytest.mark.parametrize("kind", [FreezeKind.ADMIN, FreezeKind.RISK])
def test_all_that_waits_for_the_owner_is_frozen(connection: Connection, kind: FreezeKind) -> None:
    """In every job and currency. Settled holds and those of others are not."""
    settled = place_hold(connection, state=HoldState.RELEASED)
    waiting = [place_hold(connection), place_hold(connection, job="job-9", currency="JPY", amount="10")]
    others = place_hold(connection, payee="worker-18")
    paid_by_them = place_hold(connection, job="job-10", payee="worker-19", payer=PAYEE)

    frozen = freeze(connection, kind=kind, reason="a stolen card")

    assert (frozen.owner, frozen.frozen, frozen.holds, frozen.replayed) == (PAYEE, True, 2, False)
    for hold_id in waiting:
        assert state_of(connection, hold_id) is HoldState.FROZEN
        assert open_freezes(connection, hold_id) == [kind]
        assert release_date_of(connection, hold_id) == DAY_7
    assert state_of(connection, settled) is HoldState.RELEASED
    assert [state_of(connection, hold_id) for hold_id in (others, paid_by_them)] == ["BUFFERED"] * 2
    row = connection.execute(select(hold_freeze)).mappings().first()
    assert row is not None
    assert (row["opened_by"], row["reason"], row["opened_at"]) == (ADMIN, "a stolen card", NOON)
    assert row["owner_freeze_id"] == frozen.owner_freeze_id
    assert notifications_of(connection, PAYEE).count("PAYMENT_FROZEN") == 2
    assert reconcile(connection) == []


def test_nothing_of_a_frozen_owner_is_released(connection: Connection) -> None:
    """Neither by a run nor early. Their balance is unaffected."""
    place_hold(connection, state=HoldState.RELEASED)
    hold_id = place_hold(connection)
    freeze(connection)

    batch = release_matured(connection, now=DAY_7, batch_limit=10)
    with pytest.raises(StateRefused):
        release_early(connection, hold_id=hold_id, by=PAYER, reason="well done", now=NOON)

    assert batch.holds_released == 0
    money: dict[str, Any] = {"owner": PAYEE, "currency": "PHP", "amount": "5", "now": NOON}
    withdraw(connection, reference="out-1", **money)
    deposit(connection, reference="in-1", **money)
    assert wallet_of(connection, PAYEE).balance_minor == 100_000


@WAYS
def test_new_hold_of_a_frozen_owner_is_frozen(connection: Connection, add: Add) -> None:
    """By the owner's freeze, with its person and reason; the payee is notified."""
    place_hold(connection)
    opened = freeze(connection, reason="a stolen card")

    added = add(connection, held_at=LATER)

    assert (added.state, added.replayed) == (HoldState.FROZEN, False)
    assert state_of(connection, added.hold_id) is HoldState.FROZEN
    row = (
        connection.execute(select(hold_freeze).where(hold_freeze.c.hold_id == added.hold_id)).mappings().one()
    )
    assert (row["kind"], row["owner_freeze_id"]) == ("ADMIN", opened.owner_freeze_id)
    assert (row["opened_by"], row["reason"], row["opened_at"]) == (ADMIN, "a stolen card", LATER)
    assert notifications_of(connection, PAYEE)[-2:] == ["PAYMENT_PENDING", "PAYMENT_FROZEN"]
    assert add(connection, held_at=LATER).state is HoldState.FROZEN
    assert reconcile(connection) == []


@WAYS
def test_an_owner_without_a_wallet_can_be_frozen(connection: Connection, add: Add) -> None:
    """The first earning is frozen, also the first one in another currency."""
    opened = freeze(connection)

    first = add(connection)
    second = add(connection, reference="later", currency="JPY", amount="10")

    assert opened.holds == 0
    assert [first.state, second.state] == ["FROZEN", "FROZEN"]
    assert reconcile(connection) == []


def test_a_wallet_made_by_a_deposit_knows_the_freeze(connection: Connection) -> None:
    """Whatever creates a frozen owner's wallet, the first earning in it is frozen."""
    freeze(connection)
    deposit(connection, owner=PAYEE, amount="5", currency="PHP", reference="in-1", now=NOON)

    hold_id = place_hold(connection)

    assert state_of(connection, hold_id) is HoldState.FROZEN


def test_many_earnings_are_frozen_by_their_payees_freeze(connection: Connection) -> None:
    """With notify=False nobody is notified."""
    first = freeze(connection, owner="worker-1")
    second = freeze(connection, owner="worker-3", kind=FreezeKind.RISK)
    named = [
        earning(reference=f"many-{number}", job=f"job-{number}", payee=f"worker-{number % 4}")
        for number in range(8)
    ]

    outcomes = add_many_pending_earnings(connection, named, now=NOON, notify=False)

    added = [outcome for outcome in outcomes if isinstance(outcome, AddedHold)]
    assert [one.state for one in added] == ["BUFFERED", "FROZEN"] * 4
    freezes = connection.execute(
        select(hold_freeze.c.hold_id, hold_freeze.c.owner_freeze_id, hold_freeze.c.kind)
    )
    assert {tuple(row) for row in freezes} == {
        (added[number].hold_id, opened.owner_freeze_id, kind)
        for opened, kind, numbers in ((first, "ADMIN", (1, 5)), (second, "RISK", (3, 7)))
        for number in numbers
    }
    assert notifications_of(connection, "worker-1") == []
    assert reconcile(connection) == []


@WAYS
def test_new_hold_gets_the_backjobs_and_the_owners_freeze(connection: Connection, add: Add) -> None:
    """Its payee is notified of one."""
    place_hold(connection)
    backjob = request_backjob(connection, job=JOB, by=PAYER, reason="it leaks", now=NOON)
    freeze(connection)

    added = add(connection)

    assert added.state is HoldState.FROZEN
    assert open_freezes(connection, added.hold_id) == ["BACKJOB", "ADMIN"]
    assert notifications_of(connection, PAYEE).count("PAYMENT_FROZEN") == 2
    reject_backjob(connection, backjob_id=backjob.backjob_id, by=ADMIN, reason="no", now=NOON)
    assert state_of(connection, added.hold_id) is HoldState.FROZEN
    assert reconcile(connection) == []


def test_unfreeze_buffers_holds_without_another_freeze(connection: Connection) -> None:
    """On their own dates. Others stay frozen and are not counted."""
    free, kept = place_hold(connection), place_hold(connection, job="job-9")
    own = freeze_hold(connection, hold_id=kept, kind=FreezeKind.RISK, by=ADMIN, reason="hm", now=NOON)
    opened = freeze(connection)
    late = place_hold(connection, job="job-10", held_at=NOON + timedelta(hours=1))
    notified = notifications_of(connection, PAYEE)

    done = unfreeze(connection, by="admin-2", reason="two friends")

    assert (opened.holds, notified.count("PAYMENT_FROZEN")) == (2, 3)
    assert done == OwnerFreeze(owner_freeze_id=opened.owner_freeze_id, owner=PAYEE, frozen=False, holds=2)
    assert [state_of(connection, hold_id) for hold_id in (free, late)] == ["BUFFERED", "BUFFERED"]
    assert release_date_of(connection, free) == DAY_7
    assert freeze_ids(connection, kept) == [own.freeze_id]
    assert state_of(connection, kept) is HoldState.FROZEN
    assert notifications_of(connection, PAYEE)[len(notified) :] == ["PAYMENT_RESUMED"] * 2
    row = connection.execute(select(owner_freeze)).mappings().one()
    assert (row["closed_by"], row["closing_reason"], row["closed_at"]) == ("admin-2", "two friends", LATER)
    closed = connection.execute(select(hold_freeze).where(hold_freeze.c.hold_id == free)).mappings().one()
    assert (closed["closed_by"], closed["closing_reason"], closed["closed_at"]) == (
        "admin-2",
        "two friends",
        LATER,
    )
    assert reconcile(connection) == []


@WAYS
def test_earning_of_an_unfrozen_owner_is_buffered(connection: Connection, add: Add) -> None:
    """An owner can be frozen, unfrozen and frozen again."""
    place_hold(connection)
    freeze(connection)
    unfreeze(connection)

    added = add(connection)
    again = freeze(connection, now=LATER)

    assert added.state is HoldState.BUFFERED
    assert again.holds == 2
    assert reconcile(connection) == []


def test_single_freeze_of_a_frozen_owner_cannot_be_closed(connection: Connection) -> None:
    """The refusal says what to do, and nothing is written."""
    hold_id = place_hold(connection)
    freeze(connection)
    (freeze_id,) = freeze_ids(connection, hold_id)
    before = books(connection)

    with pytest.raises(FreezeRefused) as refusal:
        unfreeze_hold(connection, freeze_id=freeze_id, by=ADMIN, reason="fine", now=NOON)

    assert str(refusal.value) == (
        f"freeze {freeze_id}: belongs to the freeze of owner 'worker-17'; unfreeze the owner"
    )
    assert (refusal.value.owner, refusal.value.hold_id, refusal.value.freeze_ids) == (
        PAYEE,
        hold_id,
        (freeze_id,),
    )
    assert refusal.value.allowed == ("unfreeze_owner",)
    assert books(connection) == before


def test_a_frozen_owner_is_not_frozen_again(connection: Connection) -> None:
    """The refusal has time and person, and nothing is written."""
    place_hold(connection)
    freeze(connection)
    before = books(connection)

    with pytest.raises(FreezeRefused) as refusal:
        freeze(connection, kind=FreezeKind.RISK)

    assert str(refusal.value) == (
        "owner 'worker-17': frozen since 2026-03-02T12:00:00+00:00 by 'admin-1'; one freeze at a time"
    )
    assert (refusal.value.owner, refusal.value.state) == (PAYEE, "FROZEN")
    assert refusal.value.allowed == ("unfreeze_owner",)
    assert books(connection) == before


@pytest.mark.parametrize("was_frozen", [False, True])
def test_an_owner_who_is_not_frozen_is_not_unfrozen(connection: Connection, was_frozen: bool) -> None:
    """Nor one already unfrozen, or unknown. Nothing is written."""
    if was_frozen:
        freeze(connection)
        unfreeze(connection)
    before = books(connection)

    with pytest.raises(FreezeRefused) as refusal:
        unfreeze(connection)

    assert str(refusal.value) == "owner 'worker-17': not frozen; only a frozen owner can be unfrozen"
    assert refusal.value.owner == PAYEE
    assert books(connection) == before


def test_owner_freeze_is_replayed(connection: Connection) -> None:
    """The first result is returned, whatever has happened since, and nothing is written."""
    place_hold(connection)
    opened = freeze(connection, reference="case-1")
    place_hold(connection, job="job-9")
    closed = unfreeze(connection, reference="case-1")
    before = books(connection)

    opened_again = freeze(connection, reference="case-1", now=LATER)
    closed_again = unfreeze(connection, reference="case-1")

    for first, again in ((opened, opened_again), (closed, closed_again)):
        assert (again.replayed, first.replayed) == (True, False)
        assert again.__dict__ | {"replayed": False} == first.__dict__
    assert (opened.holds, closed.holds) == (1, 2)
    assert books(connection) == before


@pytest.mark.parametrize(
    "change", [{"owner": "worker-18"}, {"kind": FreezeKind.RISK}, {"by": "admin-2"}, {"reason": "another"}]
)
def test_a_reference_of_another_freeze_is_refused(connection: Connection, change: dict[str, Any]) -> None:
    """For opening and closing. The refusal names what the reference was used for."""
    freeze(connection, reference="case-1")
    closes_another = change.keys() != {"kind"}

    with pytest.raises(ReferenceConflict) as refusal:
        freeze(connection, **{"reference": "case-1", **change})
    unfreeze(connection, reference="case-2")
    if closes_another:
        with pytest.raises(ReferenceConflict) as closing:
            unfreeze(connection, **{"reference": "case-2", **change})
        assert str(closing.value) == (
            "reference 'case-2': already used for the unfreezing of owner 'worker-17' by 'admin-1'"
        )
        assert (closing.value.reference, closing.value.owner) == ("case-2", PAYEE)

    assert str(refusal.value) == (
        "reference 'case-1': already used for a freeze of owner 'worker-17', ADMIN by 'admin-1'"
    )
    assert (refusal.value.reference, refusal.value.owner) == ("case-1", PAYEE)
