"""Books to seal, with seals of a few lines."""

from datetime import timedelta

import pytest
from sqlalchemy import Engine

from buffer_pipeline.audit import seals as history
from buffer_pipeline.backjob import approve_backjob, request_backjob
from buffer_pipeline.hold import HoldState
from buffer_pipeline.release_run.run import release_all_due
from buffer_pipeline.wallet import deposit, open_balance, withdraw
from buffer_pipeline_tests.support.builders import ADMIN, DAY_7, NOON, PAYEE, PAYER, place_hold
from buffer_pipeline_tests.support.debts import forgive, put_in, recover_now, take_back, take_out


@pytest.fixture
def short_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seals of four lines, so that a few lines make a chain."""
    monkeypatch.setattr(history, "RANGE_LINES", 4)


@pytest.fixture
def every_kind(engine: Engine) -> Engine:
    """Books with eleven transactions, of every type, none of them sealed."""
    with engine.begin() as connection:
        open_balance(connection, owner=PAYEE, amount="3.00", currency="PHP", reference="old-17", now=NOON)
        deposit(connection, owner=PAYEE, amount="70.00", currency="PHP", reference="in-1", now=NOON)
        withdraw(connection, owner=PAYEE, amount="30.00", currency="PHP", reference="out-1", now=NOON)
        for job in ("job-1", "job-2", "job-3"):
            place_hold(connection, job=job)
        place_hold(connection, job="refunded", amount="500.00")
        backjob = request_backjob(connection, job="refunded", by=PAYER, reason="bad", now=NOON)
        approve_backjob(connection, backjob_id=backjob.backjob_id, by=ADMIN, reason="so be it", now=NOON)
    run = release_all_due(engine, due_by=DAY_7 - timedelta(days=7) + timedelta(days=7), source="a run")
    assert run.holds_released == 3
    return engine


@pytest.fixture
def every_kind_and_debts(every_kind: Engine) -> Engine:
    """The same with a claw-back that somebody advances, and a debt that is recovered in part and forgiven."""
    with every_kind.begin() as connection:
        hold_id = place_hold(connection, job="spent", state=HoldState.RELEASED, payee="worker-18")
        take_out(connection, "900.00", owner="worker-18")
        put_in(connection, "900.00", owner="shop")
        debt_id = take_back(connection, hold_id, advanced_by="shop").debt_ids[0]
        put_in(connection, "100.00", owner="worker-18")
        recover_now(connection, owner="worker-18")
        forgive(connection, debt_id)
    return every_kind
