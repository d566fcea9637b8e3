"""Books filled to a size, by plain statements of the superuser: faster than the verbs, with the same rows."""

from dataclasses import dataclass

from sqlalchemy import text

from benchmarks.server import BenchmarkServer
from buffer_pipeline.database import statement_text  # noqa: F401


@dataclass(frozen=True, kw_only=True)
class Shape:
    """`due` holds over `wallets` payees, matured over the last `hours`; `settled` released before them."""

    due: int
    wallets: int
    hours: int = 1
    settled: int = 0


_FILL = """
SET session_replication_role = replica;
SET work_mem = '256MB';
INSERT INTO buffer.wallet (owner, currency)
SELECT 'worker-' || n, 'PHP' FROM generate_series(0, :wallets - 1) AS n;
INSERT INTO buffer.wallet (owner, currency)
SELECT 'client-' || n, 'PHP' FROM generate_series(0, 9999) AS n;
INSERT INTO buffer.hold (
  reference, job, title, payee_wallet_id, payer_wallet_id, currency, amount_minor,
  held_at, original_release_date, release_date
)
SELECT
  md5('earning-' || n), 'job-' || n, 'Fix kitchen faucet',
  1 + (n * 7919) % :wallets, :wallets + 1 + (n * 104729) % 10000, 'PHP', 10000 + n % 90000,
  d - interval '7 days', d, d
FROM generate_series(CAST(0 AS bigint), :due - 1) AS n
CROSS JOIN LATERAL (
  SELECT date_trunc('hour', now()) - interval '1 hour' * (:hours - 1 - n * :hours / :due) - interval '1 second'
    - interval '1 microsecond' * (n % 3000000) AS d
) AS due;
INSERT INTO buffer.transaction (
  type, from_account, to_account, to_wallet_id, currency, amount_minor, hold_id, recorded_at
)
SELECT 'PENDING_EARNING', 'ESCROW', 'PENDING_EARNINGS', payee_wallet_id, currency, amount_minor, hold_id, held_at
FROM buffer.hold ORDER BY hold_id;
UPDATE buffer.wallet SET pending_earnings_minor = t.amount
FROM (SELECT payee_wallet_id, sum(amount_minor) AS amount FROM buffer.hold GROUP BY 1) AS t
WHERE t.payee_wallet_id = wallet.wallet_id;
SET session_replication_role = origin;
"""


def fill(server: BenchmarkServer, database: str, shape: Shape) -> None:
    """Fill empty books."""
    engine = server.engine(database, user="postgres")
    with engine.begin() as connection:
        for statement in _FILL.strip().rstrip(";").split(";\n"):
            connection.execute(
                text(statement), {"wallets": shape.wallets, "due": shape.due, "hours": shape.hours}
            )
    engine.dispose()
    server.admin("VACUUM (ANALYZE)", database=database)
