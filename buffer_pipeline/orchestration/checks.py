"""Asset checks: the books after the credits and as a whole, and what has waited for too long."""

import heapq
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import dagster as dg
from dagster._core.storage.asset_check_execution_record import (
    AssetCheckExecutionRecord,
    AssetCheckExecutionRecordStatus,
)
from sqlalchemy import Connection

from buffer_pipeline import reports
from buffer_pipeline.counts import differing_counts
from buffer_pipeline.currencies import Places, places_of
from buffer_pipeline.database import database_clock, one_moment
from buffer_pipeline.delivery.alerts import NO_FREEZE
from buffer_pipeline.history import HISTORY_AS_SEALED, Anchor, verify
from buffer_pipeline.hours import HOUR, hour_of, overdue_by
from buffer_pipeline.orchestration.assets import (
    ANCHOR,
    BEGAN_AT,
    do_not_retry,
    released_by_this_run,
    source_of,
)
from buffer_pipeline.orchestration.lineage import BOOKS, BUFFERED, FROZEN, HOURLY_COUNTS, RELEASED, SEALED
from buffer_pipeline.orchestration.metadata import ROWS_SHOWN_MAX, amount_metadata, table_metadata
from buffer_pipeline.orchestration.report_assets import hours_of_run
from buffer_pipeline.orchestration.resources import Books
from buffer_pipeline.policy import Policy
from buffer_pipeline.reconcile import (
    INVARIANTS,
    RUN_INVARIANTS,
    Violation,
    meaning_in_a_run,
    meaning_of,
    reconcile,
    reconcile_run,
)

BLOCKING: Final = RUN_INVARIANTS
"""The invariants that stand between the credits and the notifications; the others are proved daily."""

_WARN: Final = dg.AssetCheckSeverity.WARN

OUTCOMES_PER_PAGE: Final = 30
OUTCOME_PAGES_MAX: Final = 4
"""How far back a check looks for its latest proof of all of the books: a day's hours are the first page."""

PROVED: Final = "proved"
THIS_RUN: Final = "what this run released"
ALL_BOOKS: Final = "all of the books"
OFFENDING_ROWS: Final = "offending_rows"
OFFENCE: Final = "offence"
NO_OFFENCE: Final = "none"

COUNTS_EQUAL_TRANSACTIONS: Final = "counts_equal_transactions"
"""The check of the hours that a run counted, and of all of a month's: both only warn."""

SEALED_WITHIN: Final = timedelta(hours=3)
"""Each run seals; one that finds a transaction open leaves it to the next."""

ANCHORS_MAX: Final = 31 * 24
"""Materializations whose anchors are looked for in the chain: a month's."""

DIFFERING_HOURS_BACK: Final = 31 * 24
"""How far back counts are compared when no run says which hours it is about."""


def _description(invariant: str) -> str:
    return (
        f"{meaning_of(invariant)} A release proves its own part: {_lower(meaning_in_a_run(invariant))} It"
        " proves all of the books when something has failed or broken off since they were last proved."
        " While it fails nobody is told about a release."
    )


def _lower(sentence: str) -> str:
    return sentence[0].lower() + sentence[1:]


@dg.multi_asset_check(
    name="books_reconciled",
    specs=[
        dg.AssetCheckSpec(
            invariant,
            asset=RELEASED,
            blocking=True,
            description=_description(invariant),
        )
        for invariant in BLOCKING
    ],
    can_subset=True,
)
def books_reconciled(
    context: dg.AssetCheckExecutionContext, books: dg.ResourceParam[Books]
) -> Iterator[dg.AssetCheckResult]:
    """Reconcile what this run has released, or all of the books, as they are at one moment."""
    names = _selected(context, BLOCKING)
    began = began_at(context)
    of_run = [] if began is None else [name for name in names if stood(context, name)]
    with one_moment(books.engine) as connection:
        places = places_of(connection)
        violations = reconcile(connection, [name for name in names if name not in of_run])
        if of_run and began is not None:
            violations += reconcile_run(connection, of_run, source=source_of(context.run.run_id), since=began)
    yield from _results(context, RELEASED, names, violations, places, of_run=of_run)


@dg.multi_asset_check(
    name="books_proved",
    specs=[
        dg.AssetCheckSpec(invariant, asset=BOOKS, description=meaning_of(invariant))
        for invariant in INVARIANTS
    ],
    can_subset=True,
)
def books_proved(
    context: dg.AssetCheckExecutionContext, books: dg.ResourceParam[Books]
) -> Iterator[dg.AssetCheckResult]:
    """Reconcile all of the books, as they are at one moment, and observe them."""
    names = _selected(context, INVARIANTS)
    with one_moment(books.engine) as connection:
        places = places_of(connection)
        violations = reconcile(connection, names)
    context.op_execution_context.log_event(
        dg.AssetObservation(
            BOOKS,
            metadata={
                "invariants": len(names),
                "broken": ", ".join(violation.invariant for violation in violations) or "none",
                "offending_rows": sum(len(violation.rows) for violation in violations),
            },
        )
    )
    yield from _results(context, BOOKS, names, violations, places, of_run=[])


def _selected(context: dg.AssetCheckExecutionContext, invariants: Sequence[str]) -> list[str]:
    selected = {key.name for key in context.selected_asset_check_keys}
    return [invariant for invariant in invariants if invariant in selected]


def _results(
    context: dg.AssetCheckExecutionContext,
    asset: dg.AssetKey,
    names: Sequence[str],
    violations: Sequence[Violation],
    places: Places,
    *,
    of_run: Sequence[str],
) -> Iterator[dg.AssetCheckResult]:
    broken = {violation.invariant: violation.rows for violation in violations}
    if broken:
        do_not_retry(context)
    for name in names:
        rows = broken.get(name, [])
        yield dg.AssetCheckResult(
            asset_key=asset,
            check_name=name,
            passed=not rows,
            metadata={
                PROVED: THIS_RUN if name in of_run else ALL_BOOKS,
                OFFENDING_ROWS: len(rows),
                **table_metadata("rows", rows, places),
            },
        )


def began_at(context: dg.AssetCheckExecutionContext) -> datetime | None:
    """Return when this run began to release, None when it released nothing itself, as `reconcile_books`."""
    began = released_by_this_run(context).get(BEGAN_AT)
    return None if began is None else datetime.fromtimestamp(began.value, UTC)


def stood(context: dg.AssetCheckExecutionContext, name: str) -> bool:
    """Return whether a check's latest proof of all of the books stands.

    Not so where the check has failed since, even in a run that began earlier and took longer than one
    that proved its part; where a run ended before its checks, since what it released is not proved; and
    where no such proof is found. A dry run has no outcome.
    """
    for record in outcomes(context.instance, name):
        if record.run_id == context.run.run_id:
            continue
        if record.status is AssetCheckExecutionRecordStatus.FAILED:
            return False
        if record.status is AssetCheckExecutionRecordStatus.SUCCEEDED:
            if proved(record) != THIS_RUN:
                return True
            continue
        run = context.instance.get_run_by_id(record.run_id)
        if run is not None and run.is_finished and not run.is_success:
            return False
    return False


def outcomes(instance: dg.DagsterInstance, name: str) -> Iterator[AssetCheckExecutionRecord]:
    """Yield the outcomes of the check of `books`, and of the one in each release where there is one.

    The latest to begin first, as far back as `OUTCOME_PAGES_MAX` pages of either.
    """
    assets = [BOOKS, *([RELEASED] if name in BLOCKING else [])]
    histories = [_history(instance, dg.AssetCheckKey(asset, name)) for asset in assets]
    return heapq.merge(*histories, key=lambda record: -record.id)


def _history(instance: dg.DagsterInstance, key: dg.AssetCheckKey) -> Iterator[AssetCheckExecutionRecord]:
    cursor = None
    for _ in range(OUTCOME_PAGES_MAX):
        records = instance.event_log_storage.get_asset_check_execution_history(
            key, limit=OUTCOMES_PER_PAGE, cursor=cursor
        )
        yield from records
        if len(records) < OUTCOMES_PER_PAGE:
            return
        cursor = records[-1].id


def proved(record: AssetCheckExecutionRecord) -> object:
    """Return what a check that passed says that it proved; all of the books before it said so."""
    event = record.event.dagster_event if record.event else None
    metadata = event.asset_check_evaluation_data.metadata if event else {}
    return metadata[PROVED].value if PROVED in metadata else ALL_BOOKS


@dg.asset_check(
    asset=HOURLY_COUNTS,
    name=COUNTS_EQUAL_TRANSACTIONS,
    description="Each counted hour is what the transactions and freezes say now, counted again in SQL."
    " In a run of counts it looks at that run's hours; by itself, at the last 31 days. An hour that differs"
    " was written into after it was counted, or changed: materialize it again.",
)
def counts_equal_transactions(
    context: dg.AssetCheckExecutionContext, books: dg.ResourceParam[Books]
) -> dg.AssetCheckResult:
    """List the figures of the run's hours that differ."""
    return _compare_counts(books, hours_of_run(context.run.tags))


@dg.asset_check(
    asset=BOOKS,
    name=COUNTS_EQUAL_TRANSACTIONS,
    description="Each hour of the last 31 days that is counted is what the transactions and freezes say now."
    " An hour that differs was written into after it was counted, or changed: materialize it again.",
)
def all_counts_equal_transactions(books: dg.ResourceParam[Books]) -> dg.AssetCheckResult:
    """List the figures that differ."""
    return _compare_counts(books, None)


def _compare_counts(books: Books, hours: tuple[datetime, datetime] | None) -> dg.AssetCheckResult:
    with one_moment(books.engine) as connection:
        now = hour_of(database_clock(connection))
        start, end = hours or (now - DIFFERING_HOURS_BACK * HOUR, now)
        rows, places = differing_counts(connection, start=start, end=end), places_of(connection)
    return dg.AssetCheckResult(
        passed=not rows,
        # A figure of a report is wrong, and no money.
        severity=_WARN,
        metadata={
            "start": dg.MetadataValue.timestamp(start),
            "end": dg.MetadataValue.timestamp(end),
            OFFENDING_ROWS: len(rows),
            **table_metadata("rows", rows, places),
        },
    )


@dg.asset_check(
    asset=BOOKS,
    name=HISTORY_AS_SEALED,
    description="Every sealed transaction is as it was when it was sealed, and the last seals that runs noted"
    " in `sealed_history` are in the chain: nobody has altered the past, added to it or taken from it."
    " It warns when a transaction has stayed unsealed for three hours, which happens while any transaction on"
    " the server stays open that long.",
)
def history_as_sealed(
    context: dg.AssetCheckExecutionContext, books: dg.ResourceParam[Books]
) -> dg.AssetCheckResult:
    """Verify the chain of seals by the anchors of the latest runs."""
    anchors = _noted(context.instance)
    with one_moment(books.engine) as connection:
        now = database_clock(connection)
        found = verify(connection, anchors=anchors)
    since = found.unsealed_since
    return dg.AssetCheckResult(
        passed=found.offence is None and (since is None or now - since <= SEALED_WITHIN),
        severity=_WARN if found.offence is None else dg.AssetCheckSeverity.ERROR,
        metadata={
            "transactions": found.lines,
            "seals": found.seals,
            "unsealed": found.unsealed,
            "unsealed_since": "none" if since is None else dg.MetadataValue.timestamp(since),
            "anchors": len(anchors),
            OFFENCE: found.offence or NO_OFFENCE,
        },
    )


def _noted(instance: dg.DagsterInstance) -> list[Anchor]:
    records = instance.fetch_materializations(SEALED, limit=ANCHORS_MAX).records
    noted = [
        str(record.asset_materialization.metadata[ANCHOR].value)
        for record in records
        if record.asset_materialization is not None and ANCHOR in record.asset_materialization.metadata
    ]
    return [Anchor.parse(text) for text in dict.fromkeys(noted) if text != "none"]


@dg.asset_check(
    asset=FROZEN,
    description="No payment stays frozen for longer than BUFFER_STUCK_AFTER_HOURS, or at all without an open"
    " freeze."
    " Evaluated by the sensor `stuck_frozen_payments` too.",
)
def no_payment_stuck(books: dg.ResourceParam[Books]) -> dg.AssetCheckResult:
    """List the payments that have been frozen for too long."""
    with one_moment(books.engine) as connection:
        now = database_clock(connection)
        stuck = reports.count_stuck(connection, now=now, older_than=books.policy.stuck_after)
        metadata = stuck_metadata(connection, stuck, now=now, policy=books.policy)
    return dg.AssetCheckResult(passed=stuck.holds == 0, metadata=metadata, severity=_WARN)


@dg.asset_check(
    # Not of what is released: the next release would make the outcome that of an older materialization.
    asset=BUFFERED,
    description="No payment has been due for more than an hour, past a release that should have taken it."
    " Evaluated by the sensor `overdue_releases` too.",
)
def nothing_overdue(books: dg.ResourceParam[Books]) -> dg.AssetCheckResult:
    """List the payments whose release is overdue."""
    with one_moment(books.engine) as connection:
        due_by = overdue_by(database_clock(connection))
        overdue = reports.due_holds(connection, due_by=due_by)
        metadata = overdue_metadata(connection, overdue, due_by=due_by)
    return dg.AssetCheckResult(passed=overdue.holds == 0, metadata=metadata, severity=_WARN)


def stuck_metadata(
    connection: Connection, stuck: reports.Stuck, *, now: datetime, policy: Policy
) -> dict[str, Any]:
    """Return the total of what is stuck and its first rows, the longest frozen first."""
    columns = ("hold_id", "job", "payee", "frozen_since", "kinds")
    rows = reports.stuck_holds(connection, now=now, older_than=policy.stuck_after, limit=ROWS_SHOWN_MAX)
    return {
        "stuck_holds": stuck.holds,
        "stuck_after_hours": policy.stuck_after_hours,
        **table_metadata(
            "holds",
            [{name: row[name] for name in columns} | {"kinds": row["kinds"] or NO_FREEZE} for row in rows],
        ),
    }


def overdue_metadata(connection: Connection, overdue: reports.Due, *, due_by: datetime) -> dict[str, Any]:
    """Return the totals of what is overdue and its first rows, by release date."""
    columns = ("hold_id", "job", "payee", "release_date", "amount_minor", "currency")
    rows = reports.list_holds(connection, due_by=due_by, limit=ROWS_SHOWN_MAX)
    places = places_of(connection)
    return {
        "overdue_holds": overdue.holds,
        **amount_metadata(overdue.amounts_minor, places),
        **table_metadata("holds", [{name: row[name] for name in columns} for row in rows], places),
    }
