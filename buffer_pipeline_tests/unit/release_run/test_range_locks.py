"""A range ends at a lock that others keep, and uses the values that it reads after waiting."""

import pytest
from sqlalchemy import Connection, Engine, select
from sqlalchemy.exc import OperationalError

from buffer_pipeline.audit.reconcile import reconcile
from buffer_pipeline.backjob import reject_backjob, request_backjob
from buffer_pipeline.hold import HoldState
from buffer_pipeline.hours import HOUR
from buffer_pipeline.release import ReleaseBatch, matured
from buffer_pipeline.tables import unsettled_hold, wallet
from buffer_pipeline.wallet import deposit
from buffer_pipeline_tests.support.builders import (
    ADMIN,
    DAY_7,
    JOB,
    NOON,
    PAYEE,
    PAYER,
    Wallet,
    books,
    one_after_the_other,
    place_hold,
    state_of,
    wallet_of,
)
from buffer_pipeline_tests.support.due_ranges import release_within


@pytest.mark.parametrize("what", ["hold", "wallet"])
def test_range_times_out_on_a_held_lock(engine: Engine, what: str) -> None:
    """On a hold or a wallet: the batch ends with that error and writes nothing."""
    with engine.begin() as connection:
        place_hold(connection)
        before = books(connection)
    table = {"hold": unsettled_hold, "wallet": wallet}[what]

    with engine.connect() as keeper, engine.connect() as connection:
        keeper.execute(select(table).with_for_update())
        with pytest.raises(OperationalError) as refused:
            release_within(connection)
        connection.rollback()
        assert books(connection) == before

    assert getattr(refused.value.orig, "sqlstate", None) == "55P03"


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A range waits as long as the test does, to see what it finds after the wait."""
    monkeypatch.setattr(matured, "LOCK_WAIT_SECONDS", 60)


@pytest.mark.usefixtures("patient")
def test_range_after_a_backjob_leaves_the_hold(engine: Engine) -> None:
    """A hold that is frozen while the range waits for it is not released."""
    with engine.begin() as connection:
        frozen = place_hold(connection)
        free = place_hold(connection, job="job-9")

    _, batch = one_after_the_other(
        engine,
        lambda connection: request_backjob(connection, job=JOB, by=PAYER, reason="it leaks", now=NOON),
        release_within,
    )

    assert isinstance(batch, ReleaseBatch)
    assert batch.holds_released == 1
    with engine.connect() as connection:
        assert state_of(connection, frozen) is HoldState.FROZEN
        assert state_of(connection, free) is HoldState.RELEASED
        assert reconcile(connection) == []


@pytest.mark.usefixtures("patient")
def test_range_after_a_rejection_uses_the_new_date(engine: Engine) -> None:
    """A hold that gets a later date while the range waits for it is not released."""
    with engine.begin() as connection:
        hold_id = place_hold(connection)

    def hold_on_and_reject(connection: Connection) -> None:
        opened = request_backjob(connection, job=JOB, by=PAYER, reason="it leaks", now=NOON)
        reject_backjob(
            connection, backjob_id=opened.backjob_id, by=ADMIN, reason="it does not", now=DAY_7 - HOUR
        )

    _, batch = one_after_the_other(engine, hold_on_and_reject, release_within)

    assert isinstance(batch, ReleaseBatch)
    assert batch.holds_released == 0
    with engine.connect() as connection:
        assert state_of(connection, hold_id) is HoldState.BUFFERED


@pytest.mark.usefixtures("patient")
def test_range_after_a_deposit_credits_on_top_of_it(engine: Engine) -> None:
    """A balance that changes while the range waits for its wallet is the one that is credited."""
    with engine.begin() as connection:
        place_hold(connection)

    one_after_the_other(
        engine,
        lambda connection: deposit(
            connection, owner=PAYEE, amount="5.00", currency="PHP", reference="in-1", now=NOON
        ),
        release_within,
    )

    with engine.connect() as connection:
        assert wallet_of(connection, PAYEE) == Wallet(balance_minor=100_500)
        assert reconcile(connection) == []
