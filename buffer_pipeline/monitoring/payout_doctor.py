"""The check of `doctor` that looks at payouts. Reads only."""

from typing import Any, Final

from sqlalchemy import Engine

from buffer_pipeline.database import database_clock
from buffer_pipeline.monitoring.doctor import Answer, asking, stamp
from buffer_pipeline.notifications.sanitize import counted
from buffer_pipeline.policy import PayoutPolicy
from buffer_pipeline.reports.payouts import stuck_batches

_BATCHES_SHOWN: Final = 5

_FACTS: Final = {
    "UNANSWERED": "batch {id} was sent at {since}, without a status of {payouts}",
    "UNAPPROVED": "batch {id} was made at {since} and is not approved",
    "UNSENT": "batch {id} was approved at {since} and is not sent, so its file is not exported",
}
_ADVICE: Final = {
    "UNANSWERED": "ask the bank, and run `buffer-pipeline payout import-status`",
    "UNAPPROVED": "run `buffer-pipeline payout batch approve`, or `batch cancel`",
    "UNSENT": "run `buffer-pipeline payout batch send` and `payout export`, or `batch cancel`",
}


def payouts(engine: Engine, *, policy: PayoutPolicy) -> Answer:
    """Check whether a batch of payouts waits for its approval, its sending, or the bank for too long."""
    with asking(engine) as connection:
        stuck = stuck_batches(connection, now=database_clock(connection), policy=policy)
    if not stuck:
        return True, "no batch of payouts waits for too long", ""
    more = len(stuck) - _BATCHES_SHOWN
    facts = [_fact(row) for row in stuck[:_BATCHES_SHOWN]] + ([f"and {more} more"] if more > 0 else [])
    stages = dict.fromkeys(row["stage"] for row in stuck)
    return False, "; ".join(facts), "; ".join(_ADVICE[stage] for stage in stages)


def _fact(row: dict[str, Any]) -> str:
    return _FACTS[row["stage"]].format(
        id=row["payout_batch_id"], since=stamp(row["since"]), payouts=counted(row["payouts"], "payout")
    )
