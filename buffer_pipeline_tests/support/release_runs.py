"""Release runs on the real stack that stop at a gate."""

from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection, Engine, text

from buffer_pipeline.database import database_clock
from buffer_pipeline.intake import Earning, add_many_pending_earnings
from buffer_pipeline_tests.support.builders import waiting_for_a_lock
from buffer_pipeline_tests.support.stack import Ui, ask, launch_release, wait_for

HOLDS: Final = 600

WALLETS: Final = 24

BATCH_LIMIT: Final = 50
"""Two wallets per batch: a lock on the twelfth wallet stops the sixth batch."""


# An uncommitted line: a transaction that writes the same hold's line waits for it. A release skips a locked
# hold or wallet, so locking these would not stop it.
GATE: Final = text(
    "WITH opened AS (INSERT INTO buffer.batch (kind, source, due_by, recorded_at)"
    " VALUES ('DUE', 'a gate', clock_timestamp(), clock_timestamp()) RETURNING batch_id, recorded_at)"
    " INSERT INTO buffer.transaction (type, from_account, from_wallet_id, to_account, to_wallet_id, currency,"
    " amount_minor, balance_after_minor, hold_id, batch_id, recorded_at, release_date)"
    " SELECT DISTINCT ON (owner) 'EARNING', 'PENDING_EARNINGS', wallet_id, 'BALANCE', wallet_id,"
    " waiting.currency,"
    " amount_minor, amount_minor, hold_id, batch_id, recorded_at, release_date"
    " FROM opened CROSS JOIN buffer.unsettled_hold AS waiting"
    " JOIN buffer.wallet ON wallet_id = payee_wallet_id"
    " WHERE owner = any(:owners) ORDER BY owner, hold_id"
)


def hold_many(engine: Engine, *, now: datetime) -> None:
    """Add earnings of many sizes, all due within one hour."""
    with engine.begin() as connection:
        add_many_pending_earnings(
            connection,
            [
                Earning(
                    reference=f"earning-{number}",
                    job=f"job-{number}",
                    payee=f"worker-{number % WALLETS:02d}",
                    payer="client-3",
                    amount=f"{10 + number}.{number % 100:02d}",
                    currency="PHP",
                    held_at=now - timedelta(days=8),
                )
                for number in range(HOLDS)
            ],
            now=now,
        )


def retry_of(ui: Ui, run_id: str) -> str | None:
    """Return Dagster's retry of this run."""
    query = """query ($run: String!) {runsOrError(filter: {tags: [
        {key: "dagster/parent_run_id", value: $run}]}) {... on Runs {results {runId}}}}"""
    found = ask(ui, query, run=run_id)["runsOrError"]["results"]
    assert len(found) <= 1
    return found[0]["runId"] if found else None


def launch_one_that_waits(ui: Ui, engine: Engine, blocker: Connection, watcher: Connection) -> str:
    """Launch a release that stops after its fifth batch until `blocker` rolls back."""
    hold_many(engine, now=database_clock(watcher))
    watcher.rollback()
    blocker.execute(GATE, {"owners": ["worker-11"]})
    run_id = launch_release(ui, batch_limit=BATCH_LIMIT)
    wait_for(lambda: waiting_for_a_lock(watcher), what="a batch that waits")
    return run_id


def let_go(blocker: Connection, watcher: Connection) -> None:
    """Open the gate. The server ends the sessions of killed processes."""
    blocker.rollback()
    wait_for(lambda: not waiting_for_a_lock(watcher), what="the end of what was killed")
