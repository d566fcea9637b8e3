"""The check of `doctor` that looks at payouts. Reads only."""

from typing import Any, Final

from sqlalchemy import Engine

from buffer_pipeline.database import database_clock
from buffer_pipeline.monitoring.doctor import Answer, asking, stamp
from buffer_pipeline.notifications.sanitize import counted
from buffer_pipeline.policy import PayoutPolicy
from buffer_pipeline.reports.payouts import UNBATCHED, stuck_batches, unbatched_payouts

_SHOWN: Final = 5

_FACTS: Final = {
    "UNANSWERED": "batch {id} was sent at {since}, without a status of {payouts}",
    "UNAPPROVED": "batch {id} was made at {since} and is not approved",
    "UNSENT": "batch {id} was approved at {since} and is not sent, so its file is not exported",
}
_ADVICE: Final = {
    "UNANSWERED": "ask the bank, and run `buffer-pipeline payout import-status`",
    "UNAPPROVED": "run `buffer-pipeline payout batch approve`, or `batch cancel`",
    "UNSENT": "run `buffer-pipeline payout batch send` and `payout export`, or `batch cancel`",
    "NOT_MADE": "run `buffer-pipeline payout batch make`",
    "FROZEN": "run `buffer-pipeline unfreeze-owner`, or `payout cancel`",
    "INDEBTED": "run `buffer-pipeline debt recover`, or `payout cancel`",
    "NEW_DESTINATION": "wait for the destination, or run `buffer-pipeline payout cancel`",
}


def payouts(engine: Engine, *, policy: PayoutPolicy) -> Answer:
    """Check whether a batch of payouts waits for its approval, its sending, or the bank for too long, or a
    payout for a batch.
    """
    with asking(engine) as connection:
        now = database_clock(connection)
        stuck = stuck_batches(connection, now=now, policy=policy)
        unbatched = unbatched_payouts(connection, now=now, policy=policy)
    if not stuck and not unbatched:
        return True, "no payout and no batch of payouts waits for too long", ""
    facts = [*_shown([_fact(row) for row in stuck]), *_shown([_fact_of_payout(row) for row in unbatched])]
    reasons = dict.fromkeys([*(row["stage"] for row in stuck), *(row["why"] for row in unbatched)])
    return False, "; ".join(facts), "; ".join(_ADVICE[reason] for reason in reasons)


def _shown(facts: list[str]) -> list[str]:
    more = len(facts) - _SHOWN
    return facts[:_SHOWN] + ([f"and {more} more"] if more > 0 else [])


def _fact_of_payout(row: dict[str, Any]) -> str:
    return (
        f"payout {row['payout_id']} of {row['owner']} was requested at {stamp(row['since'])} and is in no"
        f" batch: {UNBATCHED[row['why']]}"
    )


def _fact(row: dict[str, Any]) -> str:
    return _FACTS[row["stage"]].format(
        id=row["payout_batch_id"], since=stamp(row["since"]), payouts=counted(row["payouts"], "payout")
    )
