"""An owner's freeze and concurrent intake: no hold of a frozen owner stays unfrozen, in any order."""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import OperationalError

from buffer_pipeline.audit.reconcile import reconcile
from buffer_pipeline.database import AnyConnection, Row, fetch
from buffer_pipeline.errors import FreezeRefused
from buffer_pipeline.hold import FreezeKind, HoldState
from buffer_pipeline.intake import AddedHold, add_many_pending_earnings
from buffer_pipeline.locks import lock_holds
from buffer_pipeline.owner_freeze import OwnerFreeze, freeze_owner, unfreeze_owner
from buffer_pipeline.release import release_early, release_matured
from buffer_pipeline.wallet import deposit
from buffer_pipeline_tests.support.builders import (
    ADMIN,
    NOON,
    PAYEE,
    WAIT_SECONDS_MAX,
    all_at_once,
    one_after_the_other,
    open_freezes,
    place_hold,
    state_of,
    waiting_for_a_lock,
)
from buffer_pipeline_tests.support.earnings import WAYS, Add, earning

Got = TypeVar("Got")

SERIALIZATION_FAILURE = "40001"


def freeze(connection: Connection, owner: str = PAYEE) -> OwnerFreeze:
    """Freeze an owner as an admin."""
    return freeze_owner(connection, owner=owner, kind=FreezeKind.ADMIN, by=ADMIN, reason="a look", now=NOON)


def unfreeze(connection: Connection, owner: str = PAYEE) -> OwnerFreeze:
    """Unfreeze an owner as an admin."""
    return unfreeze_owner(connection, owner=owner, by=ADMIN, reason="fine", now=NOON)


def has_a_wallet(connection: Connection) -> None:
    """The payee has a hold and a wallet in the earning's currency."""
    place_hold(connection)


def has_another_wallet(connection: Connection) -> None:
    """The payee has a wallet in another currency."""
    place_hold(connection, currency="JPY", amount="10")


def has_an_older_wallet(connection: Connection) -> None:
    """The payee has a wallet from before there were rows of owners."""
    has_another_wallet(connection)
    connection.execute(text("ALTER TABLE buffer.owner DISABLE TRIGGER owner_is_kept"))
    connection.execute(text("GRANT DELETE ON buffer.owner TO CURRENT_USER"))
    connection.execute(text("DELETE FROM buffer.owner"))
    connection.execute(text("ALTER TABLE buffer.owner ENABLE TRIGGER owner_is_kept"))


def has_nothing(_connection: Connection) -> None:
    """The payee is unknown."""


BEFORE = pytest.mark.parametrize(
    "before", [has_a_wallet, has_another_wallet, has_an_older_wallet, has_nothing]
)


def assert_all_frozen(engine: Engine, *, holds: int) -> None:
    """Each hold of the payee has one open freeze, the owner's."""
    with engine.connect() as connection:
        found = connection.execute(
            text("SELECT hold_id, state FROM buffer.unsettled_hold ORDER BY hold_id")
        ).all()
        assert [state for _, state in found] == ["FROZEN"] * holds
        assert all(open_freezes(connection, hold_id) == ["ADMIN"] for hold_id, _ in found)
        assert reconcile(connection) == []


@WAYS
@BEFORE
def test_freeze_that_waits_for_an_earning_freezes_it(
    engine: Engine, add: Add, before: Callable[[Connection], None]
) -> None:
    """The earning is not committed yet."""
    with engine.begin() as connection:
        before(connection)
        standing = connection.scalar(text("SELECT count(*) FROM buffer.hold"))

    added, frozen = one_after_the_other(engine, add, freeze)

    assert added.state is HoldState.BUFFERED
    assert isinstance(frozen, OwnerFreeze)
    assert frozen.holds == (standing or 0) + 1
    assert_all_frozen(engine, holds=frozen.holds)


@WAYS
@BEFORE
def test_earning_that_waits_for_a_freeze_is_frozen(
    engine: Engine, add: Add, before: Callable[[Connection], None]
) -> None:
    """It finds the freeze after its commit."""
    with engine.begin() as connection:
        before(connection)

    frozen, added = one_after_the_other(engine, freeze, add)

    assert isinstance(added, AddedHold)
    assert added.state is HoldState.FROZEN
    assert_all_frozen(engine, holds=frozen.holds + 1)


@WAYS
@BEFORE
def test_earning_that_waits_for_an_unfreeze_is_buffered(
    engine: Engine, add: Add, before: Callable[[Connection], None]
) -> None:
    """It finds the owner not frozen."""
    with engine.begin() as connection:
        before(connection)
        freeze(connection)

    _, added = one_after_the_other(engine, unfreeze, add)

    assert isinstance(added, AddedHold)
    assert added.state is HoldState.BUFFERED
    with engine.connect() as connection:
        assert open_freezes(connection, added.hold_id) == []
        assert reconcile(connection) == []


@WAYS
@BEFORE
def test_unfreeze_that_waits_for_an_earning_buffers_it(
    engine: Engine, add: Add, before: Callable[[Connection], None]
) -> None:
    """Together with the other holds."""
    with engine.begin() as connection:
        before(connection)
        opened = freeze(connection)

    added, done = one_after_the_other(engine, add, unfreeze)

    assert added.state is HoldState.FROZEN
    assert isinstance(done, OwnerFreeze)
    assert done.holds == opened.holds + 1
    with engine.connect() as connection:
        assert state_of(connection, added.hold_id) is HoldState.BUFFERED
        assert reconcile(connection) == []


@BEFORE
def test_wallet_created_after_waiting_for_a_freeze_is_frozen(
    engine: Engine, before: Callable[[Connection], None]
) -> None:
    """A deposit creates the wallet, and the next earning is frozen."""
    with engine.begin() as connection:
        before(connection)

    one_after_the_other(
        engine,
        freeze,
        lambda connection: deposit(
            connection, owner=PAYEE, amount="5", currency="PHP", reference="in-1", now=NOON
        ),
    )

    with engine.begin() as connection:
        hold_id = place_hold(connection)
        assert state_of(connection, hold_id) is HoldState.FROZEN
        assert reconcile(connection) == []


def test_many_earnings_that_wait_for_two_freezes_are_frozen(engine: Engine) -> None:
    """Of many owners in one call, with and without wallets."""
    with engine.begin() as connection:
        for number in range(3):
            place_hold(connection, job=f"job-{number}", payee=f"worker-{number}")
    many = [
        earning(reference=f"many-{number}", job=f"many-{number}", payee=f"worker-{number}")
        for number in range(6)
    ]

    def freeze_two(connection: Connection) -> None:
        freeze(connection, "worker-1")
        freeze(connection, "worker-4")

    _, added = one_after_the_other(
        engine, freeze_two, lambda connection: add_many_pending_earnings(connection, many, now=NOON)
    )

    assert isinstance(added, list)
    states = [one.state for one in added if isinstance(one, AddedHold)]
    assert states == ["BUFFERED", "FROZEN", "BUFFERED", "BUFFERED", "FROZEN", "BUFFERED"]
    with engine.connect() as connection:
        assert reconcile(connection) == []


def test_one_of_concurrent_owner_freezes_succeeds(engine: Engine) -> None:
    """Also for an unknown owner. Of concurrent unfreezes one succeeds."""
    with engine.begin() as connection:
        place_hold(connection)

    for verb in (freeze, unfreeze):
        for owner in (PAYEE, "worker-new"):
            outcomes = all_at_once(engine, *[lambda connection: verb(connection, owner)] * 4)  # noqa: B023

            assert sum(isinstance(outcome, OwnerFreeze) for outcome in outcomes) == 1
            assert sum(isinstance(outcome, FreezeRefused) for outcome in outcomes) == 3
    with engine.connect() as connection:
        assert reconcile(connection) == []


# ---- REPEATABLE READ


@contextmanager
def an_old_snapshot(engine: Engine) -> Iterator[Connection]:
    """A transaction with a snapshot of the present books."""
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
        connection.execute(text("SELECT count(*) FROM buffer.hold"))
        yield connection
        connection.rollback()


def assert_conflicts(connection: Connection, verb: Callable[[Connection], object]) -> None:
    """The verb fails with a serialization error, and can be retried in a new transaction."""
    with pytest.raises(OperationalError) as conflict:
        verb(connection)
    assert getattr(conflict.value.orig, "sqlstate", None) == SERIALIZATION_FAILURE
    connection.rollback()
    with connection.begin():
        verb(connection)


@WAYS
@BEFORE
def test_a_snapshot_from_before_a_freeze_adds_nothing_unfrozen(
    engine: Engine, add: Add, before: Callable[[Connection], None]
) -> None:
    """It fails. On a retry, the earning is frozen."""
    with engine.begin() as connection:
        before(connection)
    with an_old_snapshot(engine) as adding:
        with engine.begin() as connection:
            opened = freeze(connection)

        assert_conflicts(adding, add)

    assert_all_frozen(engine, holds=opened.holds + 1)


@WAYS
@BEFORE
def test_a_snapshot_from_before_an_earning_freezes_no_owner(
    engine: Engine, add: Add, before: Callable[[Connection], None]
) -> None:
    """It fails. On a retry, it freezes the earning."""
    with engine.begin() as connection:
        before(connection)
    with an_old_snapshot(engine) as freezing:
        with engine.begin() as connection:
            add(connection)

        assert_conflicts(freezing, freeze)

    with engine.connect() as connection:
        standing = connection.scalar(text("SELECT count(*) FROM buffer.hold")) or 0
    assert_all_frozen(engine, holds=standing)


@WAYS
@BEFORE
def test_a_snapshot_from_before_an_earning_unfreezes_no_owner(
    engine: Engine, add: Add, before: Callable[[Connection], None]
) -> None:
    """It fails. On a retry, no hold of the owner is frozen."""
    with engine.begin() as connection:
        before(connection)
        freeze(connection)
    with an_old_snapshot(engine) as unfreezing:
        with engine.begin() as connection:
            add(connection)

        assert_conflicts(unfreezing, unfreeze)

    with engine.connect() as connection:
        assert (
            connection.scalar(text("SELECT count(*) FROM buffer.unsettled_hold WHERE state = 'FROZEN'")) == 0
        )
        assert reconcile(connection) == []


def test_a_snapshot_from_before_a_freeze_releases_nothing(engine: Engine) -> None:
    """An early release of a hold that was frozen meanwhile fails."""
    with engine.begin() as connection:
        hold_id = place_hold(connection)
    with an_old_snapshot(engine) as releasing:
        with engine.begin() as connection:
            freeze(connection)

        with pytest.raises(OperationalError) as conflict:
            release_early(releasing, hold_id=hold_id, by=ADMIN, as_admin=True, reason="well done", now=NOON)

    assert getattr(conflict.value.orig, "sqlstate", None) == SERIALIZATION_FAILURE


# ---- locks


@pytest.mark.parametrize("verb", [freeze, unfreeze])
def test_freeze_does_not_wait_for_a_late_hold_while_holding_wallets(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, verb: Callable[[Connection], OwnerFreeze]
) -> None:
    """A hold is added before the wallets are locked, and another verb locks it: that verb gets its wallet."""
    with engine.begin() as connection:
        place_hold(connection)
        if verb is unfreeze:
            freeze(connection)
    with engine.connect() as releasing, engine.connect() as watcher, ThreadPoolExecutor(1) as threads:
        late: list[int] = []

        def come_in_between(connection: AnyConnection, name: str, **parameters: Any) -> Sequence[Row]:
            if name == "owner_freeze/lock_wallets_of_owner" and not late:
                with engine.begin() as adding:
                    late.append(place_hold(adding, job="job-9"))
                lock_holds(releasing, hold_ids=late)
            return fetch(connection, name, **parameters)

        def run() -> OwnerFreeze:
            with engine.begin() as connection:
                return verb(connection)

        monkeypatch.setattr("buffer_pipeline.owner_freeze.fetch", come_in_between)
        running = threads.submit(run)
        deadline = time.monotonic() + WAIT_SECONDS_MAX
        while not waiting_for_a_lock(watcher):
            assert time.monotonic() < deadline, "it does not wait for the late hold"
            assert not running.done()
        # Of a wallet not locked by the session that waits for the hold.
        deposit(releasing, owner=PAYEE, amount="5", currency="PHP", reference="in-1", now=NOON)
        releasing.commit()
        done = running.result(timeout=WAIT_SECONDS_MAX)

    assert done.holds == 2
    with engine.connect() as connection:
        assert reconcile(connection) == []


def test_release_and_concurrent_freeze_settle_or_freeze(engine: Engine) -> None:
    """A release that comes second skips locked holds. A freeze that comes second finds fewer."""
    later = NOON.replace(year=2025)
    with engine.begin() as connection:
        place_hold(connection, held_at=later, release_date=later)
        kept = place_hold(connection)

    batch, frozen = one_after_the_other(
        engine, lambda connection: release_matured(connection, now=NOON, batch_limit=10), freeze
    )
    assert (batch.holds_released, isinstance(frozen, OwnerFreeze) and frozen.holds) == (1, 1)
    with engine.begin() as connection:
        assert state_of(connection, kept) is HoldState.FROZEN
        unfreeze(connection)
        place_hold(connection, held_at=later, release_date=later)

    _, skipped = one_after_the_other(
        engine, freeze, lambda connection: release_matured(connection, now=NOON, batch_limit=10)
    )

    assert not isinstance(skipped, Exception)
    assert skipped.holds_released == 0
    assert_all_frozen(engine, holds=2)
