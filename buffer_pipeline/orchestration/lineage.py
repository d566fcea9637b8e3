"""The external assets, and the columns of every asset with their origins."""

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
HOLD_RULES: Final = dg.AssetKey("hold_rules")
BUFFERED: Final = dg.AssetKey("buffered_transactions")
BACKJOBS: Final = dg.AssetKey("backjobs")
FROZEN: Final = dg.AssetKey("frozen_payments")
RELEASED: Final = dg.AssetKey("released_transactions")
NOTIFICATIONS: Final = dg.AssetKey("release_notifications")
RUN_COUNTS: Final = dg.AssetKey("release_counts")
SEALED: Final = dg.AssetKey("sealed_history")
HOURLY_COUNTS: Final = dg.AssetKey("hourly_release_counts")
DAILY_REPORT: Final = dg.AssetKey("daily_release_report")
DEBTS: Final = dg.AssetKey("debts")
PAYOUT_BATCHES: Final = dg.AssetKey("payout_batches")
BOOKS: Final = dg.AssetKey("books")

Origins = Mapping[str, Sequence[tuple[dg.AssetKey, str]]]
"""Column -> the columns of other assets that it is computed from."""


def columns_of(table: Table) -> dg.TableSchema:
    """Return the columns of a table in Dagster's form."""
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
    """Return columns that are not those of a table: name -> "type: description"."""
    return dg.TableSchema(
        columns=[
            dg.TableColumn(name, type=text.partition(": ")[0], description=text.partition(": ")[2])
            for name, text in descriptions.items()
        ]
    )


def origin_of(origins: Origins) -> dg.TableColumnLineage:
    """Return the origins in Dagster's form."""
    return dg.TableColumnLineage(
        {
            column: [dg.TableColumnDep(asset_key=key, column_name=name) for key, name in sources]
            for column, sources in origins.items()
        }
    )


def about(schema: dg.TableSchema, origins: Origins, *, table: Table | None = None) -> dict[str, Any]:
    """Return the metadata with the columns of an asset, their origins and its table."""
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
        " client's complaint (`request_backjob`), a decision. Each report is part of a database transaction"
        " of the platform. Its reference makes a repeated report harmless.",
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
                payer="text: the owner who paid, and who receives a refund",
                amount="decimal: in major units, with at most the decimal places of the currency",
                currency="text: ISO 4217",
                held_at="timestamptz: when the seven days begin",
                metadata="jsonb: the platform's own keys and values",
                requested_by="text: who asks for a backjob",
                reason="text: why",
            ),
            {},
        ),
    ),
    dg.AssetSpec(
        HOLD_RULES,
        description="Named, versioned terms of payments: how long they wait, and the fee, tax and reserve"
        " that are taken. A version never changes. Each payment records the version that it has; without one"
        " it has the defaults of the settings.",
        group_name=GROUP,
        owners=OWNERS,
        kinds={"postgres"},
        tags=TAGS,
        code_version="1",
        metadata=about(columns_of(tables.hold_rule), {}, table=tables.hold_rule),
    ),
    dg.AssetSpec(
        BUFFERED,
        deps=[PLATFORM_EVENTS, HOLD_RULES],
        description="Payments that wait in the buffer. A hold is settled exactly once: released to its payee"
        " or refunded to its payer. The platform writes it with `add_pending_earnings`, in the transaction"
        " that completes the job.",
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
                "amount_minor": [
                    (PLATFORM_EVENTS, "amount"),
                    (PLATFORM_EVENTS, "currency"),
                    (HOLD_RULES, "fee_percent"),
                    (HOLD_RULES, "fee_fixed_minor"),
                    (HOLD_RULES, "tax_percent"),
                    (HOLD_RULES, "reserve_percent"),
                ],
                "held_at": [(PLATFORM_EVENTS, "held_at")],
                "original_release_date": [
                    (PLATFORM_EVENTS, "held_at"),
                    (HOLD_RULES, "days"),
                    (HOLD_RULES, "reserve_days"),
                ],
                "release_date": [
                    (PLATFORM_EVENTS, "held_at"),
                    (HOLD_RULES, "days"),
                    (HOLD_RULES, "reserve_days"),
                    (HOLD_RULES, "cooldown_hours"),
                ],
                "metadata": [(PLATFORM_EVENTS, "metadata")],
                "rule_id": [(HOLD_RULES, "rule_id")],
            },
            table=tables.hold_status,
        ),
    ),
    dg.AssetSpec(
        BACKJOBS,
        deps=[PLATFORM_EVENTS],
        description="Clients' requests to redo a job, and the decisions on them. A job has at most one open"
        " backjob.",
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
        description="Payments that are frozen by a backjob, an admin or risk control. A frozen payment is"
        " never released, no matter how much time passes. The sensor `stuck_frozen_payments` observes those"
        " that are frozen for longer than BUFFER_STUCK_AFTER_HOURS.",
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
        deps=[FROZEN, RELEASED, SEALED, HOURLY_COUNTS, DEBTS, PAYOUT_BATCHES],
        description="All of the books, which `reconcile_books` proves every night. No run materializes this"
        " asset, because Dagster shows the outcome of a check only until the next materialization: a check"
        " that has failed here stays failed until `reconcile_books` has proved it. Proving only reads and"
        " moves no money.",
        group_name=GROUP,
        owners=OWNERS,
        kinds={"postgres"},
        tags=TAGS,
        code_version="1",
        metadata=about(
            columns(
                invariants="bigint: the number of invariants that were checked",
                broken="text: the invariants that are broken",
                offending_rows="bigint: the number of rows that break them",
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
"""The assets that no run materializes: the platform's events and rules, the tables that they fill, and the
books."""

RELEASED_COLUMNS: Final = about(
    columns_of(tables.transaction),
    {
        "hold_id": [(BUFFERED, "hold_id")],
        "release_date": [(BUFFERED, "release_date")],
        "from_wallet_id": [(BUFFERED, "payee_wallet_id")],
        "to_wallet_id": [(BUFFERED, "payee_wallet_id")],
        "currency": [(BUFFERED, "currency")],
        "amount_minor": [
            (BUFFERED, "amount_minor"),
            (BUFFERED, "refunded_minor"),
            (BUFFERED, "released_minor"),
        ],
        "balance_after_minor": [
            (BUFFERED, "amount_minor"),
            (BUFFERED, "refunded_minor"),
            (BUFFERED, "released_minor"),
        ],
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
        amounts="decimal: their amounts, by currency",
        batches="bigint: the number of database transactions",
        seconds="double precision: how long the release took",
        lateness_median_seconds="double precision: released_at - release_date",
        lateness_max_seconds="double precision: released_at - release_date",
        still_due="bigint: payments that were due at the cut-off and are left to the next run",
        released_fee="decimal: the fees in the amounts, by currency, if there are any",
        released_tax="decimal: the taxes in the amounts, by currency, if there are any",
        released_reserve="decimal: the reserves in the amounts, by currency, if there are any",
    ),
    {
        "holds_released": [(RELEASED, "hold_id")],
        "amounts": [(RELEASED, "amount_minor"), (RELEASED, "currency")],
        "batches": [(RELEASED, "batch_id")],
        "lateness_median_seconds": [(RELEASED, "recorded_at")],
        "lateness_max_seconds": [(RELEASED, "recorded_at")],
        **{
            f"released_{kind}": [(RELEASED, "amount_minor"), (RELEASED, "currency"), (BUFFERED, "kind")]
            for kind in ("fee", "tax", "reserve")
        },
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
        "parts_released": [(RELEASED, "type")],
        **{
            f"released_{kind}_minor": [(RELEASED, "type"), (RELEASED, "amount_minor"), (BUFFERED, "kind")]
            for kind in ("fee", "tax", "reserve")
        },
    },
    table=tables.hourly_release_count,
)

DAILY_REPORT_COLUMNS: Final = about(
    columns(
        currency="text: ISO 4217, or all currencies",
        figure="text: the name of the figure",
        day="text: its value on the day",
        fortnight_mean="text: its daily mean over the fourteen days before",
        change="text: the change from that mean to the day",
        period="text: its value over all days of the report",
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
