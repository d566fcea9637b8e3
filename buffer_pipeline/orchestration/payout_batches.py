"""The asset `payout_batches`, its job, and its schedule. It moves money out, so it is off by default."""

from collections.abc import Sequence
from datetime import date
from typing import Any, Final

import dagster as dg

from buffer_pipeline import tables
from buffer_pipeline.currencies import places_of
from buffer_pipeline.database import fetch, snapshot
from buffer_pipeline.errors import BooksOutOfBalance, InvalidInput
from buffer_pipeline.inputs import EARLIEST
from buffer_pipeline.money import Places
from buffer_pipeline.orchestration.assets import RETRY_FAILED_OPS_TAG, refuse
from buffer_pipeline.orchestration.lineage import (
    GROUP,
    OWNERS,
    PAYOUT_BATCHES,
    RELEASED,
    TAGS,
    about,
    columns_of,
)
from buffer_pipeline.orchestration.metadata import amount_metadata, table_metadata
from buffer_pipeline.orchestration.payout_checks import no_payout_stuck, payouts_proved
from buffer_pipeline.orchestration.report_assets import DAYS_PER_RUN_MAX, RANGE_END_TAG, RANGE_START_TAG
from buffer_pipeline.orchestration.resources import Books, Clock
from buffer_pipeline.orchestration.schedules import running
from buffer_pipeline.payouts import (
    PayoutBatchState,
    ScheduledBatches,
    make_scheduled_batches,
)
from buffer_pipeline.reports.payouts import batches_of_day

# With today, because the batches of a day are made on that day. `starting_at` sets where the list starts.
DAYS_WITH_TODAY: Final = dg.DailyPartitionsDefinition(start_date=EARLIEST, timezone="UTC", end_offset=1)

BY: Final = "schedule"
"""Who has requested these payouts and made these batches, so that a person has to approve them."""

PAYOUT_POOL: Final = "payouts"

BACKFILL_TAG: Final = "dagster/backfill"

MADE: Final = "made"
"""In the metadata: whether this run has made the day's batches, or why not."""

_YES: Final = "yes"

_PAGE: Final = 200

BATCH_COLUMNS: Final = about(
    columns_of(tables.payout_batch),
    {
        "currency": [(RELEASED, "currency")],
        "payouts": [(RELEASED, "payout_id")],
        "amount_minor": [(RELEASED, "amount_minor"), (RELEASED, "payout_id")],
    },
    table=tables.payout_batch,
)


@dg.asset(
    key=PAYOUT_BATCHES,
    deps=[RELEASED],
    partitions_def=DAYS_WITH_TODAY,
    backfill_policy=dg.BackfillPolicy.multi_run(max_partitions_per_run=DAYS_PER_RUN_MAX),
    pool=PAYOUT_POOL,
    description="The batches of payouts of a day. Materializing the partition of today moves money out of"
    " balances: it requests the payouts that owners' schedules have for today, once for each balance, and"
    " puts all requested payouts into a batch for each currency and method. A Monday or a first of the month"
    " that was missed since the last run that made batches is requested too. Somebody then approves and sends"
    " them: `buffer-pipeline payout batch approve`. Repeated and overlapping runs make nothing twice. An"
    " earlier day and a backfill only report which batches were made on that day, and move nothing.",
    group_name=GROUP,
    owners=OWNERS,
    kinds={"postgres"},
    tags=TAGS,
    code_version="1",
    metadata=BATCH_COLUMNS,
)
def payout_batches(
    context: dg.AssetExecutionContext, books: dg.ResourceParam[Books], clock: dg.ResourceParam[Clock]
) -> None:
    """Make the batches of today, and report each day of the run."""
    for key in context.partition_keys:
        day = date.fromisoformat(key)
        outcome, done = _make(context, books, clock, day=day)
        with snapshot(books.engine) as connection:
            batches, places = batches_of_day(connection, day=day), places_of(connection)
        context.add_asset_metadata(
            {MADE: outcome, **batch_metadata(batches, places), **_done_metadata(done, places)},
            asset_key=PAYOUT_BATCHES,
            partition_key=key,
        )


def _make(
    context: dg.AssetExecutionContext, books: Books, clock: Clock, *, day: date
) -> tuple[str, ScheduledBatches | None]:
    """Make the batches if the day is today; return whether it did, as text."""
    if BACKFILL_TAG in context.run.tags:
        return "no: a backfill only reports", None
    with books.engine.begin() as connection:
        login = fetch(connection, "payouts/may_pay_out")[0]
        now = clock.writer(connection)
        if day < now.date():
            return "no: the day is over", None
        if day > now.date():
            refuse(context, f"{day}: this day has not begun by the clock of the books")
        if not login["may"]:
            refuse(
                context,
                f"login {login['login']!r} may not pay out: run `GRANT buffer_payouts TO {login['login']};`"
                " (docs/payouts.md)",
            )
        try:
            done = make_scheduled_batches(
                connection,
                by=BY,
                now=now,
                last_day=_last_day(context.instance),
                policy=books.payout_policy,
            )
        except (BooksOutOfBalance, InvalidInput) as refusal:
            refuse(context, str(refusal))
    return _YES, done


def _last_day(instance: dg.DagsterInstance) -> date | None:
    """Return the last day whose batches a run has made; None if there is none in Dagster's history.

    The books cannot say it: a day on which no owner had enough to be paid out leaves nothing in them.
    """
    cursor: str | None = None
    while True:
        # The newest first. A run makes the batches of no day but its own, so the first one is the last day.
        page = instance.fetch_materializations(PAYOUT_BATCHES, limit=_PAGE, cursor=cursor)
        for record in page.records:
            noted = record.asset_materialization
            if noted is None or noted.partition is None or MADE not in noted.metadata:
                continue
            if noted.metadata[MADE].value == _YES:
                return date.fromisoformat(noted.partition)
        if not page.has_more:
            return None
        cursor = page.cursor


def batch_metadata(batches: Sequence[dict[str, Any]], places: Places) -> dict[str, Any]:
    """Return how many batches a day has, their payouts and amounts without cancelled ones, and a table."""
    counted = [row for row in batches if row["state"] != PayoutBatchState.CANCELLED]
    amounts_minor = dict.fromkeys(places, 0)
    for row in counted:
        amounts_minor[row["currency"]] += row["amount_minor"]
    return {
        "batches": len(counted),
        "payouts": sum(row["payouts"] for row in counted),
        **amount_metadata(amounts_minor, places),
        "paid": sum(row["paid"] for row in batches),
        "returned": sum(row["returned"] for row in batches),
        **table_metadata("of_the_day", batches, places),
    }


def _done_metadata(done: ScheduledBatches | None, places: Places) -> dict[str, Any]:
    if done is None:
        return {}
    return {
        "requested": done.requested.payouts,
        **amount_metadata(done.requested.amounts_minor, places, of="requested_amount"),
        "missed_days": ", ".join(day.isoformat() for day in done.missed_days) or "none",
        "left_of_frozen_owners": done.left.frozen,
        "left_of_owners_in_debt": done.left.indebted,
        "left_to_wait": done.left.waiting,
    }


make_payout_batches: Final = dg.define_asset_job(
    "make_payout_batches",
    selection=dg.AssetSelection.assets(payout_batches).without_checks()
    | dg.AssetSelection.checks(payouts_proved, no_payout_stuck),
    description="Moves money: for today, requests the payouts that are due by owners' schedules, and makes"
    " batches of all that is requested. For another day it only reports, and moves none. Safe to repeat.",
    executor_def=dg.in_process_executor,
    tags={
        # Each try is the whole work: what an earlier one has committed is not done again.
        "dagster/retry_strategy": "ALL_STEPS",
        RETRY_FAILED_OPS_TAG: "true",
    },
)


@dg.schedule(
    job=make_payout_batches,
    cron_schedule="0 6 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.STOPPED,
    description="Every day at six: requests the payouts that are due today, and makes their batches. Off"
    " until somebody turns it on, because it moves money out of balances.",
)
def daily_payouts(
    context: dg.ScheduleEvaluationContext, books: dg.ResourceParam[Books], clock: dg.ResourceParam[Clock]
) -> dg.RunRequest | dg.SkipReason:
    """Ask for today, also if the tick is late."""
    if run_id := running(context, make_payout_batches.name):
        return dg.SkipReason(f"run {run_id} is making batches already")
    with books.engine.begin() as connection:
        today = clock.books(connection).date().isoformat()
    # A range of one day: as `partition_key`, Dagster would compare it with the days that a late tick knew.
    return dg.RunRequest(tags={RANGE_START_TAG: today, RANGE_END_TAG: today})
