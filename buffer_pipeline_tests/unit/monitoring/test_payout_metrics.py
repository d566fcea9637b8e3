"""The metrics of debts and payouts."""

from datetime import timedelta

from prometheus_client import CollectorRegistry, generate_latest
from sqlalchemy import Engine

from buffer_pipeline.database import database_clock
from buffer_pipeline.monitoring.metrics import BooksCollector
from buffer_pipeline.payouts import PayoutState, approve_payout_batch, send_payout_batch
from buffer_pipeline.policy import Policy
from buffer_pipeline_tests.support.debts import place_debt
from buffer_pipeline_tests.support.metrics import figures_of, series
from buffer_pipeline_tests.support.payouts import (
    APPROVER,
    MAKER,
    make_batch,
    payable,
    place_payout,
    request,
)


def test_debts_and_payouts_by_currency(engine: Engine) -> None:
    """In each state, with the amount and how long the oldest has waited, and what status files have said."""
    with engine.begin() as connection:
        now = database_clock(connection)
        place_debt(connection)
        place_payout(connection, PayoutState.RETURNED, owner="returned")
        for owner, days in (("sent", 6), ("batched", 3), ("requested", 2)):
            moment = now - timedelta(days=days)
            payable(connection, owner)
            request(connection, owner, now=moment)
            if owner == "requested":
                break
            batch = make_batch(connection, now=moment).payout_batch_id
            if owner == "sent":
                approve_payout_batch(connection, payout_batch_id=batch, by=APPROVER, now=moment)
                send_payout_batch(connection, payout_batch_id=batch, by=MAKER, now=moment)
    registry = CollectorRegistry()
    registry.register(BooksCollector(engine, policy=Policy(), endpoints=[]))

    found = figures_of(generate_latest(registry).decode())

    assert found[series("buffer_debts", currency="PHP")] == 1
    assert found[series("buffer_debt_outstanding_amount_minor", currency="PHP")] == 60_000
    for state in ("REQUESTED", "BATCHED", "SENT"):
        assert found[series("buffer_payouts", state=state, currency="PHP")] == 1
        assert found[series("buffer_payout_amount_minor", state=state, currency="PHP")] == 10_000
    assert found[series("buffer_payout_batches_waiting", state="MADE")] == 1
    assert found[series("buffer_payout_batches_waiting", state="APPROVED")] == 0
    for state, days in (("REQUESTED", 2), ("MADE", 3), ("APPROVED", 0), ("SENT", 6)):
        age = found[series("buffer_payout_oldest_age_seconds", state=state)]
        assert days * 86_400 <= age <= days * 86_400 + 120
    assert found[series("buffer_payouts_returned_total", currency="PHP")] == 1
    assert found[series("buffer_payouts_paid_total", currency="PHP")] == 0
