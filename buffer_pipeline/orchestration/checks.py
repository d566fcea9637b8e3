"""The asset checks: invariants of a release and of all books, sealed history, counts, and late payments."""

import heapq
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import dagster as dg
from sqlalchemy import Connection

from buffer_pipeline.audit.reconcile import (
    INVARIANTS,
    RUN_INVARIANTS,
    Violation,
    meaning_in_a_run,
    meaning_of,
    reconcile,
    reconcile_run,
)
from buffer_pipeline.audit.seals import HISTORY_AS_SEALED, Anchor, verify
from buffer_pipeline.currencies import places_of
from buffer_pipeline.database import snapshot
from buffer_pipeline.hours import HOUR, hour_of, overdue_by
from buffer_pipeline.money import Places
from buffer_pipeline.monitoring.alerts import NO_FREEZE
from buffer_pipeline.orchestration.assets import (
    ANCHOR,
    BEGAN_AT,
    do_not_retry,
    released_by_this_run,
    source_of,
)
from buffer_pipeline.orchestration.dagster_internals import (
    AssetCheckExecutionRecord,
    AssetCheckExecutionRecordStatus,
)
from buffer_pipeline.orchestration.lineage import BOOKS, BUFFERED, FROZEN, HOURLY_COUNTS, RELEASED, SEALED
from buffer_pipeline.orchestration.metadata import ROWS_SHOWN_MAX, amount_metadata, table_metadata
from buffer_pipeline.orchestration.report_assets import hours_of_run
from buffer_pipeline.orchestration.resources import Books, Clock
from buffer_pipeline.policy import Policy
from buffer_pipeline.reports.complete_hours import differing_counts
from buffer_pipeline.reports.due import Due, due_holds, list_due
from buffer_pipeline.reports.stuck import Stuck, count_stuck, stuck_holds, stuck_owners

BLOCKING: Final = RUN_INVARIANTS
"""The invariants that a release checks before its notifications. All invariants are checked every night."""

_WARN: Final = dg.AssetCheckSeverity.WARN

OUTCOMES_PER_PAGE: Final = 30
OUTCOME_PAGES_MAX: Final = 4
"""How many outcomes are read to find the latest proof of all books. The first page covers a day."""

PROVED: Final = "proved"
THIS_RUN: Final = "what this run released"
ALL_BOOKS: Final = "all of the books"
OFFENDING_ROWS: Final = "offending_rows"
OFFENCE: Final = "offence"
NO_OFFENCE: Final = "none"

COUNTS_EQUAL_TRANSACTIONS: Final = "counts_equal_transactions"
"""The name of two checks: of the hours that a run counted, and of all hours of a month. Both only warn."""

SEALED_WITHIN: Final = timedelta(hours=3)
"""Each run seals. A run that finds an open transaction leaves its lines to the next run."""

ANCHORS_MAX: Final = 31 * 24
"""How many materializations are read for their anchors: those of a month."""

DIFFERING_HOURS_BACK: Final = 31 * 24
"""How many hours are compared if the run has no range of hours."""


def _description(invariant: str) -> str:
    return (
        f"{meaning_of(invariant)} A release proves its own part: {_lower(meaning_in_a_run(invariant))} If a"
        " check has failed or a run was interrupted since the last full proof, it proves all of the books."
        " While this check fails, no notification of a release is sent."
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
    """Check what this run has released, or all of the books, in one snapshot."""
    names = selected_invariants(context, BLOCKING)
    began = began_at(context)
    of_run = [] if began is None else [name for name in names if passed_since(context, name)]
    with snapshot(books.engine) as connection:
        places = places_of(connection)
        violations = reconcile(connection, [name for name in names if name not in of_run])
        if of_run and began is not None:
            violations += reconcile_run(connection, of_run, source=source_of(context.run.run_id), since=began)
    yield from invariant_results(context, RELEASED, names, violations, places, of_run=of_run)


BLOCKING_CHECKS: Final = tuple(dg.AssetCheckKey(RELEASED, invariant) for invariant in BLOCKING)
"""While one of them has failed, no notification of a release is sent."""


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
    """Check all of the books in one snapshot, and record an observation."""
    names = selected_invariants(context, INVARIANTS)
    with snapshot(books.engine) as connection:
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
    yield from invariant_results(context, BOOKS, names, violations, places, of_run=[])


def selected_invariants(context: dg.AssetCheckExecutionContext, invariants: Sequence[str]) -> list[str]:
    """Return the invariants whose checks this run evaluates."""
    selected = {key.name for key in context.selected_asset_check_keys}
    return [invariant for invariant in invariants if invariant in selected]


def invariant_results(
    context: dg.AssetCheckExecutionContext,
    asset: dg.AssetKey,
    names: Sequence[str],
    violations: Sequence[Violation],
    places: Places,
    *,
    of_run: Sequence[str],
) -> Iterator[dg.AssetCheckResult]:
    """Yield the result of each check of `names`, with its rows. Those of `of_run` have proved a run only."""
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
    """Return when this run began to release; None for a run without a release, such as `reconcile_books`."""
    began = released_by_this_run(context).get(BEGAN_AT)
    return None if began is None else datetime.fromtimestamp(began.value, UTC)


def passed_since(context: dg.AssetCheckExecutionContext, name: str) -> bool:
    """Return True if the check's last proof of all the books passed and nothing has failed since.

    Return False if there is no such proof, if the check has failed since (also in a run that began earlier
    and took longer), or if a run ended before its checks, because what it released is not proved. A dry run
    has no outcome.
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
    """Yield the outcomes of the check of `books` and, if there is one, of the same check of each release.

    The check that began last comes first. At most `OUTCOME_PAGES_MAX` pages of each are read.
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
    """Return what a passed check proved. Outcomes of older versions do not say it: they proved all books."""
    event = record.event.dagster_event if record.event else None
    metadata = event.asset_check_evaluation_data.metadata if event else {}
    return metadata[PROVED].value if PROVED in metadata else ALL_BOOKS


@dg.asset_check(
    asset=HOURLY_COUNTS,
    name=COUNTS_EQUAL_TRANSACTIONS,
    description="Each counted hour equals the transactions and freezes, counted again in SQL. In a run of"
    " counts it checks the hours of that run; by itself, the last 31 days. If an hour differs, something was"
    " written into it after it was counted, or its count was changed: materialize it again.",
)
def counts_equal_transactions(
    context: dg.AssetCheckExecutionContext, books: dg.ResourceParam[Books], clock: dg.ResourceParam[Clock]
) -> dg.AssetCheckResult:
    """List the differing figures of the hours of the run."""
    return _compare_counts(books, clock, hours_of_run(context.run.tags))


@dg.asset_check(
    asset=BOOKS,
    name=COUNTS_EQUAL_TRANSACTIONS,
    description="Each counted hour of the last 31 days equals the transactions and freezes. If an hour"
    " differs, something was written into it after it was counted, or its count was changed: materialize it"
    " again.",
)
def all_counts_equal_transactions(
    books: dg.ResourceParam[Books], clock: dg.ResourceParam[Clock]
) -> dg.AssetCheckResult:
    """List the figures that differ."""
    return _compare_counts(books, clock, None)


def _compare_counts(
    books: Books, clock: Clock, hours: tuple[datetime, datetime] | None
) -> dg.AssetCheckResult:
    with snapshot(books.engine) as connection:
        now = hour_of(clock.books(connection))
        start, end = hours or (now - DIFFERING_HOURS_BACK * HOUR, now)
        rows, places = differing_counts(connection, start=start, end=end), places_of(connection)
    return dg.AssetCheckResult(
        passed=not rows,
        # A figure of a report is wrong. No money is affected.
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
    description="Every sealed transaction is unchanged, and the last seals that runs noted in"
    " `sealed_history` are in the chain: nothing sealed was altered, added or removed. It warns if a"
    " transaction has been unsealed for three hours, which happens while any transaction on the server is"
    " open for that long.",
)
def history_as_sealed(
    context: dg.AssetCheckExecutionContext, books: dg.ResourceParam[Books], clock: dg.ResourceParam[Clock]
) -> dg.AssetCheckResult:
    """Verify the chain of seals with the anchors of the latest runs."""
    anchors = _noted(context.instance)
    with snapshot(books.engine) as connection:
        now = clock.books(connection)
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
    description="No payment is frozen for longer than BUFFER_STUCK_AFTER_HOURS, and none is frozen without an"
    " open freeze. The sensor `stuck_frozen_payments` evaluates it too.",
)
def no_payment_stuck(books: dg.ResourceParam[Books], clock: dg.ResourceParam[Clock]) -> dg.AssetCheckResult:
    """List the payments that have been frozen for too long."""
    with snapshot(books.engine) as connection:
        now = clock.books(connection)
        stuck = count_stuck(connection, now=now, older_than=books.policy.stuck_after)
        metadata = stuck_metadata(connection, stuck, now=now, policy=books.policy)
    return dg.AssetCheckResult(passed=stuck.holds == 0, metadata=metadata, severity=_WARN)


@dg.asset_check(
    # Not a check of `released_transactions`: with the next release its outcome would look outdated in the UI.
    asset=BUFFERED,
    description="No payment has been due for more than an hour although a release should have taken it."
    " The sensor `overdue_releases` evaluates it too.",
)
def nothing_overdue(books: dg.ResourceParam[Books], clock: dg.ResourceParam[Clock]) -> dg.AssetCheckResult:
    """List the overdue payments."""
    with snapshot(books.engine) as connection:
        due_by = overdue_by(clock.books(connection))
        overdue = due_holds(connection, due_by=due_by)
        metadata = overdue_metadata(connection, overdue, due_by=due_by)
    return dg.AssetCheckResult(passed=overdue.holds == 0, metadata=metadata, severity=_WARN)


def stuck_metadata(connection: Connection, stuck: Stuck, *, now: datetime, policy: Policy) -> dict[str, Any]:
    """Return how many payments are stuck, and the first rows, the longest frozen first.

    What only an owner's freeze covers is a row of the owner and the currency.
    """
    columns = ("hold_id", "job", "payee", "frozen_since", "kinds")
    of_owner = ("owner", "holds", "left_minor", "currency", "kind", "opened_by", "frozen_since")
    rows = stuck_holds(connection, now=now, older_than=policy.stuck_after, limit=ROWS_SHOWN_MAX)
    owners = stuck_owners(connection, now=now, older_than=policy.stuck_after, limit=ROWS_SHOWN_MAX)
    return {
        "stuck_holds": stuck.holds,
        "stuck_after_hours": policy.stuck_after_hours,
        **table_metadata(
            "holds",
            [{name: row[name] for name in columns} | {"kinds": row["kinds"] or NO_FREEZE} for row in rows],
        ),
        **table_metadata(
            "frozen_owners",
            [{name: row[name] for name in of_owner} for row in owners],
            places_of(connection),
        ),
    }


def overdue_metadata(connection: Connection, overdue: Due, *, due_by: datetime) -> dict[str, Any]:
    """Return how many payments are overdue, their amounts, and the first rows by release date."""
    columns = ("hold_id", "job", "payee", "release_date", "amount_minor", "currency")
    rows = list_due(connection, due_by=due_by, limit=ROWS_SHOWN_MAX)
    places = places_of(connection)
    return {
        "overdue_holds": overdue.holds,
        **amount_metadata(overdue.amounts_minor, places),
        **table_metadata("holds", [{name: row[name] for name in columns} for row in rows], places),
    }
