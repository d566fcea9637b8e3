"""The batches of a day: what schedules request, and what else is requested, for a person to approve."""

from dataclasses import dataclass
from datetime import date, datetime
from typing import Final

from buffer_pipeline.database import AnyConnection, fetch
from buffer_pipeline.hours import enter_hour
from buffer_pipeline.inputs import require_text, require_time
from buffer_pipeline.locks import lock_reference
from buffer_pipeline.payouts.batch import PayoutBatch, put_in_batch
from buffer_pipeline.payouts.schedule import (
    ScheduledPayouts,
    due_schedules,
    missed_schedules,
    request_due,
)
from buffer_pipeline.policy import PayoutPolicy

_LOCK: Final = "payout batches by schedule"


@dataclass(frozen=True, kw_only=True)
class LeftPayouts:
    """How many payouts stay REQUESTED: of frozen owners, of owners who owe a debt, and of others.

    The others wait because their destination is new, or another transaction has them.
    """

    frozen: int = 0
    indebted: int = 0
    waiting: int = 0


@dataclass(frozen=True, kw_only=True)
class ScheduledBatches:
    """What was requested by schedules, the batches that were made, and what is left for a later one.

    `missed_days` are the earlier days whose schedules were requested too.
    """

    requested: ScheduledPayouts
    batches: tuple[PayoutBatch, ...]
    left: LeftPayouts
    missed_days: tuple[date, ...] = ()


def make_scheduled_batches(
    connection: AnyConnection,
    *,
    by: str,
    now: datetime,
    last_day: date | None = None,
    policy: PayoutPolicy | None = None,
) -> ScheduledBatches:
    """Request what schedules say is due, then put all requested payouts into batches.

    There is one batch for each currency and method, MADE, so somebody else than `by` has to approve it as
    the policy says. Two calls at once wait for each other. To run it again makes batches only of what was
    requested since.

    `last_day` is the last day on which this was done. Weekly and monthly schedules that were due after it and
    before today were missed, so they are requested now: each owner once, for the latest of the days. Without
    `last_day` only today is requested.

    Raises:
        BooksOutOfBalance: a batch is not what was locked for it; roll back.
    """
    now = require_time("now", now)
    require_text("by", by)
    policy = policy or PayoutPolicy()
    enter_hour(connection, now=now)
    # Otherwise two calls could divide the payouts of a currency and method between two batches.
    lock_reference(connection, _LOCK)
    missed = missed_schedules(now.date(), last_day=last_day)
    # One statement locks the wallets of all days, by id.
    due = dict.fromkeys(due_schedules(now.date()), now.date()) | missed
    requested = request_due(connection, due, by=by, now=now, policy=policy)
    batches: list[PayoutBatch] = []
    for currency in _requested_currencies(connection):
        # Passes over what another transaction has locked, so it waits for nobody, although it locks payouts
        # after wallets.
        found = fetch(
            connection,
            "payouts/lock_requested",
            currency=currency,
            method=None,
            set_by_now=now - policy.destination_wait,
        )
        batches += [
            put_in_batch(connection, taken, currency=currency, by=by, now=now, policy=policy)
            for taken in found
        ]
    return ScheduledBatches(
        requested=requested,
        batches=tuple(batches),
        left=_left(connection),
        missed_days=tuple(sorted(set(missed.values()))),
    )


def _requested_currencies(connection: AnyConnection) -> list[str]:
    return [row["currency"] for row in fetch(connection, "payouts/requested_currencies")]


def _left(connection: AnyConnection) -> LeftPayouts:
    left = [
        fetch(connection, "payouts/waiting_requests", currency=currency)[0]
        for currency in _requested_currencies(connection)
    ]
    return LeftPayouts(
        frozen=sum(row["frozen"] for row in left),
        indebted=sum(row["indebted"] for row in left),
        waiting=sum(row["waiting"] for row in left),
    )
