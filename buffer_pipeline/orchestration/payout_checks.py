"""The checks of `payout_batches` and `debts`: invariants of `reconcile_books`, and what is stuck."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

import dagster as dg

from buffer_pipeline.audit.reconcile import meaning_of, reconcile
from buffer_pipeline.currencies import places_of
from buffer_pipeline.database import snapshot
from buffer_pipeline.money import Places
from buffer_pipeline.orchestration.checks import invariant_results, selected_invariants
from buffer_pipeline.orchestration.lineage import DEBTS, PAYOUT_BATCHES
from buffer_pipeline.orchestration.metadata import table_metadata
from buffer_pipeline.orchestration.resources import Books, Clock
from buffer_pipeline.policy import PayoutPolicy
from buffer_pipeline.reports.payouts import stuck_batches, unbatched_payouts

PAYOUTS_PROVE: Final = (
    "transit_equals_open_payouts",
    "payout_equals_its_transactions",
    "payout_batch_equals_its_payouts",
)
DEBTS_PROVE: Final = (
    "debt_equals_its_transactions",
    "wallet_names_its_debts",
    "receivable_equals_debts_to_banks",
)
"""Files of `sql/reconcile/`."""


def _specs(asset: dg.AssetKey, invariants: Sequence[str]) -> list[dg.AssetCheckSpec]:
    return [
        dg.AssetCheckSpec(invariant, asset=asset, description=meaning_of(invariant))
        for invariant in invariants
    ]


@dg.multi_asset_check(name="payouts_proved", specs=_specs(PAYOUT_BATCHES, PAYOUTS_PROVE), can_subset=True)
def payouts_proved(
    context: dg.AssetCheckExecutionContext, books: dg.ResourceParam[Books]
) -> Iterator[dg.AssetCheckResult]:
    """Prove the invariants of all payouts in one snapshot."""
    yield from _prove(context, books, PAYOUT_BATCHES, PAYOUTS_PROVE)


@dg.multi_asset_check(name="debts_proved", specs=_specs(DEBTS, DEBTS_PROVE), can_subset=True)
def debts_proved(
    context: dg.AssetCheckExecutionContext, books: dg.ResourceParam[Books]
) -> Iterator[dg.AssetCheckResult]:
    """Prove the invariants of all debts in one snapshot."""
    yield from _prove(context, books, DEBTS, DEBTS_PROVE)


def _prove(
    context: dg.AssetCheckExecutionContext, books: Books, asset: dg.AssetKey, invariants: Sequence[str]
) -> Iterator[dg.AssetCheckResult]:
    names = selected_invariants(context, invariants)
    with snapshot(books.engine) as connection:
        places = places_of(connection)
        violations = reconcile(connection, names)
    yield from invariant_results(context, asset, names, violations, places, of_run=[])


@dg.asset_check(
    asset=PAYOUT_BATCHES,
    description="Each sent payout was paid or returned within BUFFER_PAYOUT_ANSWER_DAYS, and each batch"
    " approved, and then sent, within BUFFER_PAYOUT_APPROVAL_HOURS; and each requested payout got into a"
    " batch within BUFFER_PAYOUT_BATCH_DAYS. The sensor `stuck_payouts` evaluates it too.",
)
def no_payout_stuck(books: dg.ResourceParam[Books], clock: dg.ResourceParam[Clock]) -> dg.AssetCheckResult:
    """List the batches that have waited for too long, and the payouts that no batch takes."""
    policy = books.payout_policy
    with snapshot(books.engine) as connection:
        now = clock.books(connection)
        batches = stuck_batches(connection, now=now, policy=policy)
        payouts = unbatched_payouts(connection, now=now, policy=policy)
        metadata = stuck_payouts_metadata(batches, payouts, places_of(connection), policy=policy)
    return dg.AssetCheckResult(
        passed=not batches and not payouts, metadata=metadata, severity=dg.AssetCheckSeverity.WARN
    )


def stuck_payouts_metadata(
    batches: Sequence[dict[str, Any]],
    payouts: Sequence[dict[str, Any]],
    places: Places,
    *,
    policy: PayoutPolicy,
) -> dict[str, Any]:
    """Return how many batches, and payouts without one, are stuck, and the first rows, the longest first."""
    return {
        "stuck_batches": len(batches),
        "payouts_without_a_batch": len(payouts),
        "answer_days": policy.answer_days,
        "approval_hours": policy.approval_hours,
        "batch_days": policy.batch_days,
        **table_metadata("batches", batches, places),
        **table_metadata("payouts", payouts, places),
    }
