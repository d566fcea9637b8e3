"""Fill books by plain statements of the superuser, which write the rows of the verbs, but faster."""

from dataclasses import dataclass
from typing import Final

from sqlalchemy import text

from benchmarks.server import BenchmarkServer

CLIENTS: Final = 10_000


@dataclass(frozen=True, kw_only=True)
class Shape:
    """`settled` holds that are released, then `due` holds over the last `hours` release hours.

    Both are spread evenly over `wallets` payees. Another `waiting` holds are not due yet.
    """

    due: int
    wallets: int
    hours: int = 1
    settled: int = 0
    waiting: int = 0
    settled_hours: int | None = None
    """The number of hours over which the settled holds were due, evenly; None means 360 days."""
    due_wallets: int | None = None
    """The number of wallets, evenly spaced, over which the unsettled holds are spread; None means all."""


# While the books are filled, triggers and foreign keys are off. The indexes of the large tables are dropped
# and built again at the end, before anything is measured.
_INDEXES: Final = """
SELECT indexdef, schemaname || '.' || indexname AS name FROM pg_indexes
WHERE schemaname = 'buffer' AND indexname IN (
  'hold_job_idx', 'transaction_hold_earned_key', 'transaction_hold_line_key',
  'transaction_generation_to_wallet_idx', 'transaction_from_wallet_idx', 'transaction_recorded_brin'
)
"""

_FILL: Final = """
INSERT INTO buffer.currency (currency, places) VALUES ('PHP', 2) ON CONFLICT DO NOTHING;
INSERT INTO buffer.wallet (owner, currency)
SELECT 'worker-' || number, 'PHP' FROM generate_series(0, :wallets - 1) AS number;
INSERT INTO buffer.wallet (owner, currency)
SELECT 'client-' || number, 'PHP' FROM generate_series(0, :clients - 1) AS number;
INSERT INTO buffer.hold (
  reference, job, title, payee_wallet_id, payer_wallet_id, currency, amount_minor,
  held_at, original_release_date
)
SELECT
  md5('earning-' || number), 'job-' || number, 'Fix kitchen faucet',
  CASE
    WHEN number < :settled OR CAST(:due_wallets AS bigint) IS NULL THEN 1 + (number * 7919) % :wallets
    ELSE 1 + (number * 7919) % :due_wallets * (:wallets / :due_wallets)
  END,
  :wallets + 1 + (number * 104729) % :clients, 'PHP', 10000 + number % 90000,
  release_date - interval '7 days', release_date
FROM generate_series(0, CAST(:settled AS bigint) + :due + :waiting - 1) AS number
CROSS JOIN LATERAL (
  SELECT date_trunc('hour', now()) - interval '1 second' - interval '1 microsecond' * (number % 3000000)
  + CASE
    WHEN number < :settled AND CAST(:settled_hours AS bigint) IS NOT NULL
      THEN interval '1 hour' * ((number * :settled_hours) / :settled - :settled_hours - 1)
    WHEN number < :settled THEN interval '1 day' * ((number * 360) / :settled - 361)
    WHEN number < CAST(:settled AS bigint) + :due
      THEN interval '1 hour' * (1 - :hours + ((number - :settled) * :hours) / :due)
    ELSE interval '1 hour' * (1 + ((number - :settled - :due) * 150) / :waiting)
  END AS release_date
) AS due;
INSERT INTO buffer.job (job, payer)
SELECT job, owner FROM buffer.hold INNER JOIN buffer.wallet ON wallet_id = payer_wallet_id ORDER BY hold_id;
INSERT INTO buffer.batch (kind, source, due_by, recorded_at)
SELECT 'DUE', 'fill', release_date, release_date
FROM (
  SELECT DISTINCT date_bin('1 hour', original_release_date, timestamptz '2000-01-01 00:00:00+00')
    + interval '1 hour' AS release_date
  FROM buffer.hold WHERE hold_id <= :settled
) AS hour
ORDER BY release_date;
INSERT INTO buffer.transaction (
  type, from_account, to_account, from_wallet_id, to_wallet_id, currency, amount_minor, balance_after_minor,
  hold_id, batch_id, recorded_at, release_date
)
SELECT
  line.type, line.from_account, line.to_account, line.from_wallet_id, hold.payee_wallet_id, hold.currency,
  hold.amount_minor,
  CASE WHEN line.type = 'EARNING' THEN sum(hold.amount_minor) FILTER (WHERE line.type = 'EARNING') OVER (
    PARTITION BY hold.payee_wallet_id ORDER BY hold.hold_id
  ) END,
  hold.hold_id, CASE WHEN line.type = 'EARNING' THEN batch.batch_id END,
  CASE WHEN line.type = 'EARNING' THEN batch.recorded_at ELSE hold.held_at END,
  CASE WHEN line.type = 'EARNING' THEN hold.original_release_date END
FROM buffer.hold
LEFT JOIN buffer.batch ON batch.recorded_at = date_bin(
  '1 hour', hold.original_release_date, timestamptz '2000-01-01 00:00:00+00') + interval '1 hour'
  AND hold.hold_id <= :settled
CROSS JOIN LATERAL (
  SELECT 'PENDING_EARNING' AS type, 'ESCROW' AS from_account, 'PENDING_EARNINGS' AS to_account,
    CAST(NULL AS bigint) AS from_wallet_id
  UNION ALL
  SELECT 'EARNING', 'PENDING_EARNINGS', 'BALANCE', hold.payee_wallet_id WHERE hold.hold_id <= :settled
) AS line
ORDER BY CASE WHEN line.type = 'EARNING' THEN batch.recorded_at ELSE hold.held_at END, hold.hold_id;
INSERT INTO buffer.unsettled_hold (hold_id, payee_wallet_id, currency, amount_minor, release_date)
SELECT hold_id, payee_wallet_id, currency, amount_minor, original_release_date
FROM buffer.hold WHERE hold_id > :settled ORDER BY hold_id;
UPDATE buffer.wallet SET balance_minor = total.balance_minor, pending_earnings_minor = total.pending_minor
FROM (
  SELECT
    payee_wallet_id,
    coalesce(sum(amount_minor) FILTER (WHERE hold_id <= :settled), 0) AS balance_minor,
    coalesce(sum(amount_minor) FILTER (WHERE hold_id > :settled), 0) AS pending_minor
  FROM buffer.hold GROUP BY payee_wallet_id
) AS total
WHERE total.payee_wallet_id = wallet.wallet_id
"""


def fill(server: BenchmarkServer, database: str, shape: Shape) -> None:
    """Fill empty books."""
    values = {**vars(shape), "clients": CLIENTS}
    engine = server.engine(database, user="postgres")
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        connection.execute(text("SET LOCAL work_mem = '512MB'"))
        indexes = connection.execute(text(_INDEXES)).all()
        for index in indexes:
            connection.execute(text(f"DROP INDEX {index.name}"))
        for statement in _FILL.split(";\n"):
            connection.execute(text(statement), values)
        for index in indexes:
            connection.execute(text(index.indexdef))
    engine.dispose()
    server.admin("VACUUM (ANALYZE)", database=database)
    server.admin("CHECKPOINT")
