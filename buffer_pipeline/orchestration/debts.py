"""The asset `debts`: what owners owe at the end of each day. It moves no money."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

import dagster as dg

from buffer_pipeline.currencies import places_of
from buffer_pipeline.database import snapshot
from buffer_pipeline.errors import HourInProgress
from buffer_pipeline.money import Places
from buffer_pipeline.orchestration.lineage import DEBTS, GROUP, OWNERS, RELEASED, TAGS, about, columns
from buffer_pipeline.orchestration.metadata import amount_metadata, table_metadata
from buffer_pipeline.orchestration.report_assets import DAYS, DAYS_PER_RUN_MAX, not_now
from buffer_pipeline.orchestration.resources import Books
from buffer_pipeline.reports.complete_hours import require_complete
from buffer_pipeline.reports.debts import debts_of_day

BANK: Final = "bank"
"""The creditor of what banks have taken, which is on the account RECEIVABLE."""

_MOVED: Final = [
    (RELEASED, name)
    for name in ("type", "debt_id", "amount_minor", "from_wallet_id", "to_wallet_id", "recorded_at")
]

DEBT_COLUMNS: Final = about(
    columns(
        currency="text: ISO 4217",
        creditor="text: who waits for the money; `bank` has taken it already",
        debts="bigint: how many debts are open at the end of the day",
        outstanding="decimal: what is owed at the end of the day",
        opened="bigint: how many debts claw-backs have left on that day",
        opened_amount="decimal: their amounts",
        recovered="decimal: what releases and admins have paid of debts on that day",
        forgiven="decimal: what was written off on that day",
    ),
    {
        "currency": [(RELEASED, "currency")],
        "creditor": [(RELEASED, "to_wallet_id")],
        "debts": _MOVED,
        "outstanding": _MOVED,
        "recovered": _MOVED,
        "forgiven": _MOVED,
    },
)


@dg.asset(
    key=DEBTS,
    deps=[RELEASED],
    partitions_def=DAYS,
    backfill_policy=dg.BackfillPolicy.multi_run(max_partitions_per_run=DAYS_PER_RUN_MAX),
    description="What owners owe at the end of a day, by currency and creditor, and what was opened,"
    " recovered and forgiven on that day. A claw-back leaves a debt if the balance does not cover it, and"
    " releases pay it. It is computed from the debts and their transactions: a backfill moves no money and"
    " can be repeated. `buffer-pipeline debt list` has the debts of now.",
    group_name=GROUP,
    owners=OWNERS,
    kinds={"postgres"},
    tags=TAGS,
    code_version="1",
    freshness_policy=dg.FreshnessPolicy.cron(deadline_cron="0 1 * * *", lower_bound_delta=timedelta(hours=1)),
    metadata=DEBT_COLUMNS,
)
def debts(context: dg.AssetExecutionContext, books: dg.ResourceParam[Books]) -> None:
    """Report each day of the run."""
    for key in context.partition_keys:
        window = DAYS.time_window_for_partition_key(key)
        with books.engine.connect() as connection:
            try:
                require_complete(connection, end=window.end)
            except HourInProgress as refusal:
                not_now(refusal)
        with snapshot(books.engine) as connection:
            rows = debts_of_day(connection, day=window.start.date())
            places = places_of(connection)
        context.add_asset_metadata(debt_metadata(rows, places), asset_key=DEBTS, partition_key=key)


def debt_metadata(rows: Sequence[dict[str, Any]], places: Places) -> dict[str, Any]:
    """Return the debts of a day for plots: numbers over all currencies, amounts per currency, and a table."""
    shown = [
        {
            "currency": row["currency"],
            "creditor": row["creditor"] or BANK,
            "debts": row["debts"],
            "outstanding_minor": row["outstanding_minor"],
            "opened": row["opened"],
            "opened_amount_minor": row["opened_minor"],
            "recovered_minor": row["recovered_minor"],
            "forgiven_minor": row["forgiven_minor"],
        }
        for row in rows
        if any(row[name] for name in ("outstanding_minor", "opened", "recovered_minor", "forgiven_minor"))
    ]
    return {
        "debts": sum(row["debts"] for row in rows),
        **amount_metadata(_by_currency(rows, "outstanding_minor"), places, of="outstanding"),
        "opened": sum(row["opened"] for row in rows),
        **amount_metadata(_by_currency(rows, "opened_minor"), places, of="opened_amount"),
        **amount_metadata(_by_currency(rows, "recovered_minor"), places, of="recovered"),
        **amount_metadata(_by_currency(rows, "forgiven_minor"), places, of="forgiven"),
        **table_metadata("creditors", shown, places),
    }


def _by_currency(rows: Sequence[dict[str, Any]], name: str) -> dict[str, int]:
    """Return the sum of each currency in which anything was ever owed, also if it is zero."""
    amounts_minor: dict[str, int] = {}
    for row in rows:
        amounts_minor[row["currency"]] = amounts_minor.get(row["currency"], 0) + row[name]
    return amounts_minor
