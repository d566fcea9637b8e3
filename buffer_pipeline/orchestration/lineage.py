"""Where each figure comes from: the external assets, and the columns of every asset with their origin."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import dagster as dg
from sqlalchemy import Table
from sqlalchemy.dialects import postgresql

from buffer_pipeline import tables

GROUP: Final = "payment_buffer"
OWNERS: Final = ["team:payments"]
TAGS: Final = {"domain": "payments"}

PLATFORM_EVENTS: Final = dg.AssetKey("platform_events")
BUFFERED: Final = dg.AssetKey("buffered_transactions")
BACKJOBS: Final = dg.AssetKey("backjobs")
FROZEN: Final = dg.AssetKey("frozen_payments")
RELEASED: Final = dg.AssetKey("released_transactions")
NOTIFICATIONS: Final = dg.AssetKey("release_notifications")
RUN_COUNTS: Final = dg.AssetKey("release_counts")
SEALED: Final = dg.AssetKey("sealed_history")
HOURLY_COUNTS: Final = dg.AssetKey("hourly_release_counts")
DAILY_REPORT: Final = dg.AssetKey("daily_release_report")
BOOKS: Final = dg.AssetKey("books")

Origins = Mapping[str, Sequence[tuple[dg.AssetKey, str]]]
"""Column -> the columns of other assets that it is made of."""


def columns_of(table: Table) -> dg.TableSchema:
    """Return a table's columns as Dagster shows them."""
    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                column.name,
                type=column.type.compile(dialect=postgresql.dialect()).lower(),  # type: ignore[no-untyped-call]
                description=_description(column.name, column.doc),
                constraints=dg.TableColumnConstraints(
                    nullable=bool(column.nullable), unique=list(table.primary_key.columns) == [column]
                ),
            )
            for column in table.columns
        ]
    )


def _description(name: str, doc: str | None) -> str | None:
    if not name.endswith("_minor"):
        return doc
    unit = "in the currency's minor unit (100050 is 1000.50 PHP)"
    return unit if doc is None else f"{doc}; {unit}"


def columns(**descriptions: str) -> dg.TableSchema:
    """Return the columns of what is no table: name -> "type: description"."""
    return dg.TableSchema(
        columns=[
            dg.TableColumn(name, type=text.partition(": ")[0], description=text.partition(": ")[2])
            for name, text in descriptions.items()
        ]
    )


def origin_of(origins: Origins) -> dg.TableColumnLineage:
    """Return Dagster's form of the origins."""
    return dg.TableColumnLineage(
        {
            column: [dg.TableColumnDep(asset_key=key, column_name=name) for key, name in sources]
            for column, sources in origins.items()
        }
    )


def about(schema: dg.TableSchema, origins: Origins, *, table: Table | None = None) -> dict[str, Any]:
    """Return the metadata that states an asset's columns, their origin and its table."""
    named = {} if table is None else {"dagster/table_name": str(table)}
    return {
        "dagster/column_schema": schema,
        "dagster/column_lineage": origin_of(origins),
        **named,
    }


EXTERNAL: Final = [
    dg.AssetSpec(
        PLATFORM_EVENTS,
        description="What the platform's own code reports: a completed job (`add_pending_earnings`), a"
        " client's complaint (`request_backjob`), a decision. Each comes in the platform's own database"
        " transaction, and its reference makes a repeated report harmless.",
        group_name=GROUP,
        owners=["team:platform"],
        kinds={"python"},
        tags=TAGS,
        code_version="1",
        metadata=about(
            columns(
                reference="text: the idempotency key of the payment",
                job="text: the platform's id of the work",
                title="text: what the work is called",
                payee="text: the owner who earns",
                payer="text: the owner who paid, to whom a refund goes",
                amount="decimal: in major units, no more places than the currency has",
                currency="text: ISO 4217",
                held_at="timestamptz: when the seven days begin",
                requested_by="text: who asks for a backjob",
                reason="text: why",
            ),
            {},
        ),
    ),
    dg.AssetSpec(
        BUFFERED,
        deps=[PLATFORM_EVENTS],
        description="Payments that wait in the buffer. A hold is settled exactly once: released to its payee"
        " or refunded to its payer. The platform writes it, through `add_pending_earnings`, in the"
        " transaction that completes its own job.",
        group_name=GROUP,
        owners=OWNERS,
        kinds={"postgres"},
        tags=TAGS,
        code_version="1",
        metadata=about(
            columns_of(tables.hold_status),
            {
                "reference": [(PLATFORM_EVENTS, "reference")],
                "job": [(PLATFORM_EVENTS, "job")],
                "title": [(PLATFORM_EVENTS, "title")],
                "payee_wallet_id": [(PLATFORM_EVENTS, "payee"), (PLATFORM_EVENTS, "currency")],
                "payer_wallet_id": [(PLATFORM_EVENTS, "payer"), (PLATFORM_EVENTS, "currency")],
                "currency": [(PLATFORM_EVENTS, "currency")],
                "amount_minor": [(PLATFORM_EVENTS, "amount"), (PLATFORM_EVENTS, "currency")],
                "held_at": [(PLATFORM_EVENTS, "held_at")],
                "original_release_date": [(PLATFORM_EVENTS, "held_at")],
                "release_date": [(PLATFORM_EVENTS, "held_at")],
            },
            table=tables.hold_status,
        ),
    ),
    dg.AssetSpec(
        BACKJOBS,
        deps=[PLATFORM_EVENTS],
        description="Clients' requests to redo a job, and how they were decided. One is open a job at most.",
        group_name=GROUP,
        owners=OWNERS,
        kinds={"postgres"},
        tags=TAGS,
        code_version="1",
        metadata=about(
            columns_of(tables.backjob),
            {
                "job": [(PLATFORM_EVENTS, "job")],
                "requested_by": [(PLATFORM_EVENTS, "requested_by")],
                "reason": [(PLATFORM_EVENTS, "reason")],
            },
            table=tables.backjob,
        ),
    ),
    dg.AssetSpec(
        FROZEN,
        deps=[BUFFERED, BACKJOBS],
        description="Payments under a backjob, an admin's or a risk freeze. A frozen payment is never"
        " released, however late the clock; the sensor `stuck_frozen_payments` observes those that stay"
        " frozen for longer than BUFFER_STUCK_AFTER_HOURS.",
        group_name=GROUP,
        owners=OWNERS,
        kinds={"postgres"},
        tags=TAGS,
        code_version="1",
        metadata=about(
            columns_of(tables.hold_freeze),
            {
                "hold_id": [(BUFFERED, "hold_id")],
                "backjob_id": [(BACKJOBS, "backjob_id")],
                "reason": [(BACKJOBS, "reason")],
                "opened_by": [(BACKJOBS, "requested_by")],
                "opened_at": [(BACKJOBS, "requested_at")],
                "closed_by": [(BACKJOBS, "decided_by")],
                "closing_reason": [(BACKJOBS, "decision_reason")],
                "closed_at": [(BACKJOBS, "decided_at")],
            },
            table=tables.hold_freeze,
        ),
    ),
    dg.AssetSpec(
        BOOKS,
        deps=[FROZEN, RELEASED, SEALED, HOURLY_COUNTS],
        description="All of the books, as `reconcile_books` proves them every night. No run materializes"
        " this asset, so no later run makes its checks look as if they had not been evaluated: a check that"
        " has failed here stays failed until `reconcile_books` has proved it. Proving reads only and moves no"
        " money.",
        group_name=GROUP,
        owners=OWNERS,
        kinds={"postgres"},
        tags=TAGS,
        code_version="1",
        metadata=about(
            columns(
                invariants="bigint: invariants that were proved",
                broken="text: the invariants that do not hold",
                offending_rows="bigint: rows that break them",
            ),
            {
                "offending_rows": [
                    (RELEASED, "amount_minor"),
                    (RELEASED, "balance_after_minor"),
                    (FROZEN, "closed_at"),
                ]
            },
        ),
    ),
]
"""What no run materializes: the platform's event, the tables that the verbs fill from it, and the books."""

RELEASED_COLUMNS: Final = about(
    columns_of(tables.transaction),
    {
        "hold_id": [(BUFFERED, "hold_id")],
        "release_date": [(BUFFERED, "release_date")],
        "from_wallet_id": [(BUFFERED, "payee_wallet_id")],
        "to_wallet_id": [(BUFFERED, "payee_wallet_id")],
        "currency": [(BUFFERED, "currency")],
        "amount_minor": [(BUFFERED, "amount_minor"), (BUFFERED, "refunded_minor")],
        "balance_after_minor": [(BUFFERED, "amount_minor"), (BUFFERED, "refunded_minor")],
    },
    table=tables.transaction,
)

NOTIFICATION_COLUMNS: Final = about(
    columns_of(tables.notification),
    {
        "owner": [(RELEASED, "to_wallet_id")],
        "hold_id": [(RELEASED, "hold_id")],
        "currency": [(RELEASED, "currency")],
        "amount_minor": [(RELEASED, "amount_minor")],
        "created_at": [(RELEASED, "recorded_at")],
    },
    table=tables.notification,
)

RUN_COUNT_COLUMNS: Final = about(
    columns(
        holds_released="bigint: payments that the run released",
        amounts="decimal: what they came to, a currency",
        batches="bigint: database transactions that it took",
        seconds="double precision: how long the release took",
        lateness_median_seconds="double precision: released_at - release_date",
        lateness_max_seconds="double precision: released_at - release_date",
        still_due="bigint: payments due at the cut-off that the run left to the next",
    ),
    {
        "holds_released": [(RELEASED, "hold_id")],
        "amounts": [(RELEASED, "amount_minor"), (RELEASED, "currency")],
        "batches": [(RELEASED, "batch_id")],
        "lateness_median_seconds": [(RELEASED, "recorded_at")],
        "lateness_max_seconds": [(RELEASED, "recorded_at")],
    },
)

HOURLY_COUNT_COLUMNS: Final = about(
    columns_of(tables.hourly_release_count),
    {
        "hour": [(RELEASED, "recorded_at"), (FROZEN, "opened_at"), (FROZEN, "closed_at")],
        "currency": [(RELEASED, "currency"), (BUFFERED, "currency")],
        "holds_added": [(RELEASED, "type")],
        "added_minor": [(RELEASED, "type"), (RELEASED, "amount_minor")],
        "holds_released": [(RELEASED, "type")],
        "holds_released_early": [(RELEASED, "type"), (RELEASED, "batch_id")],
        "released_minor": [(RELEASED, "type"), (RELEASED, "amount_minor")],
        "payees": [(RELEASED, "to_wallet_id")],
        "lateness_median_seconds": [(RELEASED, "recorded_at"), (BUFFERED, "release_date")],
        "lateness_max_seconds": [(RELEASED, "recorded_at"), (BUFFERED, "release_date")],
        "refunds": [(RELEASED, "type")],
        "refunded_minor": [(RELEASED, "type"), (RELEASED, "amount_minor")],
        "freezes_opened": [(FROZEN, "opened_at")],
        "freezes_closed": [(FROZEN, "closed_at")],
    },
    table=tables.hourly_release_count,
)

DAILY_REPORT_COLUMNS: Final = about(
    columns(
        currency="text: ISO 4217, or all currencies",
        figure="text: what is counted",
        day="text: on the day",
        fortnight_mean="text: a day's mean over the fourteen days before",
        change="text: from the mean to the day",
        period="text: over all the days that the report covers",
    ),
    {
        "currency": [(HOURLY_COUNTS, "currency")],
        "day": (
            counted := [
                *(
                    (HOURLY_COUNTS, column.name)
                    for column in tables.hourly_release_count.columns
                    if column.name not in ("hour", "currency")
                ),
                (BUFFERED, "amount_minor"),
                (BUFFERED, "state"),
                (FROZEN, "opened_at"),
                (FROZEN, "closed_at"),
            ]
        ),
        "fortnight_mean": counted,
        "change": counted,
        "period": counted,
    },
)
