"""The line `payouts` of `doctor`."""

from datetime import timedelta

from sqlalchemy import Engine

from buffer_pipeline.database import database_clock
from buffer_pipeline.hold import FreezeKind
from buffer_pipeline.monitoring.payout_doctor import payouts
from buffer_pipeline.owner_freeze import freeze_owner
from buffer_pipeline.payouts import approve_payout_batch, send_payout_batch
from buffer_pipeline.policy import PayoutPolicy
from buffer_pipeline_tests.support.builders import ADMIN
from buffer_pipeline_tests.support.payouts import APPROVER, MAKER, make_batch, payable, request


def place_batches(engine: Engine, number: int) -> list[int]:
    """Make batches of one payout each, nine days ago."""
    with engine.begin() as connection:
        made_at = database_clock(connection) - timedelta(days=9)
        ids = []
        for each in range(number):
            payable(connection, f"worker-{each}")
            request(connection, f"worker-{each}")
            ids.append(make_batch(connection, now=made_at).payout_batch_id)
    return ids


def test_payouts_that_wait(engine: Engine) -> None:
    """Each batch with what to do: ask the bank, approve, or send and export."""
    ids = place_batches(engine, 3)
    with engine.begin() as connection:
        now = database_clock(connection)
        for id_ in ids[:2]:
            approve_payout_batch(connection, payout_batch_id=id_, by=APPROVER, now=now - timedelta(days=8))
        send_payout_batch(connection, payout_batch_id=ids[0], by=MAKER, now=now - timedelta(days=7))

    ok, fact, advice = payouts(engine, policy=PayoutPolicy())

    assert not ok
    made, approved, sent = fact.split("; ")
    assert made.startswith(f"batch {ids[2]} was made at ")
    assert made.endswith("Z and is not approved")
    assert approved.startswith(f"batch {ids[1]} was approved at ")
    assert approved.endswith("Z and is not sent, so its file is not exported")
    assert sent.startswith(f"batch {ids[0]} was sent at ")
    assert sent.endswith("Z, without a status of 1 payout")
    for command in ("payout import-status", "payout batch approve", "payout batch send", "payout export"):
        assert command in advice


def test_nothing_waits_or_not_for_so_long(engine: Engine) -> None:
    """The line is ok, by the settings."""
    empty = payouts(engine, policy=PayoutPolicy())
    place_batches(engine, 1)

    patient = payouts(engine, policy=PayoutPolicy(approval_hours=240))

    assert empty == patient == (True, "no payout and no batch of payouts waits for too long", "")


def test_payouts_without_a_batch(engine: Engine) -> None:
    """Each with what keeps it and what to do."""
    with engine.begin() as connection:
        now = database_clock(connection)
        ids = []
        for owner in ("worker-1", "worker-2"):
            payable(connection, owner)
            ids.append(request(connection, owner, now=now - timedelta(days=8)).payout_id)
        freeze_owner(connection, owner="worker-2", kind=FreezeKind.RISK, by=ADMIN, reason="a look", now=now)

    ok, fact, advice = payouts(engine, policy=PayoutPolicy())
    patient = payouts(engine, policy=PayoutPolicy(batch_days=9))

    assert not ok
    waits, frozen = fact.split("; ")
    assert waits.startswith(f"payout {ids[0]} of worker-1 was requested at ")
    assert waits.endswith("Z and is in no batch: nobody makes a batch")
    assert frozen.endswith("the owner is frozen")
    assert "`buffer-pipeline payout batch make`" in advice
    assert "`buffer-pipeline unfreeze-owner`" in advice
    assert patient[0]


def test_many_batches_are_one_line(engine: Engine) -> None:
    """It names the first five, and the number of the others."""
    place_batches(engine, 7)

    _, fact, _ = payouts(engine, policy=PayoutPolicy())

    assert fact.count("batch ") == 5
    assert fact.endswith("; and 2 more")
