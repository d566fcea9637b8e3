"""The metrics of debts and payouts. Amounts are minor units."""

from datetime import datetime

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from sqlalchemy import Connection

from buffer_pipeline.currencies import places_of
from buffer_pipeline.database import fetch
from buffer_pipeline.payouts.state import OPEN_BATCH, OPEN_PAYOUT, PayoutState


def debt_metrics(connection: Connection) -> list[Metric]:
    """Return the open debts, for each currency of the books."""
    debts = GaugeMetricFamily("buffer_debts", "Open debts.", labels=["currency"])
    outstanding = GaugeMetricFamily(
        "buffer_debt_outstanding_amount_minor",
        "What is outstanding of the debts, in minor units.",
        labels=["currency"],
    )
    found = {row["currency"]: row for row in fetch(connection, "metrics/debts")}
    for currency in places_of(connection):
        row = found.get(currency)
        debts.add_metric([currency], row["debts"] if row else 0)
        outstanding.add_metric([currency], row["outstanding_minor"] if row else 0)
    return [debts, outstanding]


def payout_metrics(connection: Connection, *, now: datetime) -> list[Metric]:
    """Return the payouts in transit and their batches, and what was answered, for each currency."""
    payouts = GaugeMetricFamily("buffer_payouts", "Payouts in transit.", labels=["state", "currency"])
    amounts = GaugeMetricFamily(
        "buffer_payout_amount_minor",
        "Amount of the payouts in transit, in minor units.",
        labels=["state", "currency"],
    )
    batches = GaugeMetricFamily(
        "buffer_payout_batches_waiting",
        "Batches that wait: MADE for their approval, APPROVED for their sending.",
        labels=["state"],
    )
    age = GaugeMetricFamily(
        "buffer_payout_oldest_age_seconds",
        "How long the oldest has waited: MADE and APPROVED of a batch, REQUESTED and SENT of a payout; 0 if"
        " there is none.",
        labels=["state"],
    )
    paid = CounterMetricFamily(
        "buffer_payouts_paid", "Payouts that status files have marked as paid.", labels=["currency"]
    )
    returned = CounterMetricFamily(
        "buffer_payouts_returned", "Payouts that status files have marked as returned.", labels=["currency"]
    )
    rows = fetch(connection, "metrics/payouts")
    answered = {row["currency"]: row for row in fetch(connection, "metrics/answered_payouts")}
    for currency in places_of(connection):
        for state in OPEN_PAYOUT:
            states = OPEN_BATCH if state is PayoutState.BATCHED else (state,)
            here = [row for row in rows if row["currency"] == currency and row["state"] in states]
            payouts.add_metric([state, currency], sum(row["payouts"] for row in here))
            amounts.add_metric([state, currency], sum(row["amount_minor"] for row in here))
        row = answered.get(currency)
        paid.add_metric([currency], row["paid"] if row else 0)
        returned.add_metric([currency], row["returned"] if row else 0)
    for waits in OPEN_BATCH:
        batches.add_metric([waits], sum(row["batches"] for row in rows if row["state"] == waits))
    for name in (PayoutState.REQUESTED.value, *OPEN_BATCH, PayoutState.SENT.value):
        since = min((row["since"] for row in rows if row["state"] == name), default=now)
        age.add_metric([name], max(0.0, (now - since).total_seconds()))
    return [payouts, amounts, batches, age, paid, returned]
