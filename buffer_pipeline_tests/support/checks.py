"""Asset checks: their results in a run, and books that break one."""

from typing import Final

import dagster as dg

RECONCILE_JOB: Final = "reconcile_books"

SECOND_EARNING: Final = (
    "DROP INDEX buffer.transaction_hold_earned_key",
    "INSERT INTO buffer.transaction (type, from_account, from_wallet_id, to_account, to_wallet_id,"
    " currency, amount_minor, balance_after_minor, hold_id, batch_id, recorded_at, release_date)"
    " SELECT type, from_account, from_wallet_id, to_account, to_wallet_id, currency, amount_minor,"
    " balance_after_minor, hold_id, batch_id, recorded_at, release_date"
    " FROM buffer.transaction WHERE type = 'EARNING'",
)


def evaluation_of(result: dg.ExecuteInProcessResult, check: str) -> dg.AssetCheckEvaluation:
    """Return a check's evaluation in the run."""
    return next(found for found in result.get_asset_check_evaluations() if found.check_name == check)
