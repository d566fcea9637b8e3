"""How partitioning the transactions by month changes the speed, measured on copies of the same books.

The program does not do this. The figures show what the step in docs/scaling.md costs and gains. A unique
index must contain the partition key, so the one that prevents a second EARNING of a hold has the time in it
here.
"""

import time
from statistics import median
from typing import Final

from sqlalchemy import Connection, Engine, text

from benchmarks.figure import Figure
from benchmarks.fill import Shape, fill
from benchmarks.server import BenchmarkServer
from buffer_pipeline.database import database_clock
from buffer_pipeline.hours import HOUR, hour_of
from buffer_pipeline.reads import LIMIT_MAX, StatementLine, every_item, statement
from buffer_pipeline.release_run.run import release_all_due
from buffer_pipeline.reports.complete_hours import first_hour
from buffer_pipeline.reports.hourly_counts import compute_counts

PARTITION: Final = """
DO $$
DECLARE
  status text := pg_get_viewdef('buffer.hold_status');
  month timestamptz;
BEGIN
  DROP VIEW buffer.hold_status;
  ALTER TABLE buffer.transaction RENAME TO transaction_whole;
  CREATE TABLE buffer.transaction (
    LIKE buffer.transaction_whole INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING IDENTITY
  ) PARTITION BY RANGE (recorded_at);
  FOR month IN
    SELECT generate_series(date_trunc('month', now() - interval '15 months'), now(), '1 month')
  LOOP
    EXECUTE format(
      'CREATE TABLE buffer.transaction_%s PARTITION OF buffer.transaction FOR VALUES FROM (%L) TO (%L)',
      to_char(month, 'YYYYMM'), month, month + interval '1 month'
    );
  END LOOP;
  INSERT INTO buffer.transaction OVERRIDING SYSTEM VALUE SELECT * FROM buffer.transaction_whole;
  PERFORM setval(
    pg_get_serial_sequence('buffer.transaction', 'transaction_id'),
    (SELECT max(transaction_id) FROM buffer.transaction_whole)
  );
  DROP TABLE buffer.transaction_whole;
  ALTER TABLE buffer.transaction ADD PRIMARY KEY (transaction_id, recorded_at);
  CREATE UNIQUE INDEX ON buffer.transaction (hold_id, recorded_at) WHERE type = 'EARNING';
  CREATE UNIQUE INDEX ON buffer.transaction (hold_id, type, backjob_id, recorded_at) NULLS NOT DISTINCT
    WHERE hold_id IS NOT NULL AND type <> 'EARNING';
  CREATE INDEX ON buffer.transaction ((transaction_id >> 17), to_wallet_id, transaction_id);
  CREATE INDEX ON buffer.transaction (from_wallet_id, transaction_id)
    WHERE from_wallet_id IS DISTINCT FROM to_wallet_id;
  CREATE INDEX ON buffer.transaction USING brin (recorded_at, batch_id);
  CREATE TRIGGER transaction_references_what_is_there AFTER INSERT ON buffer.transaction
  REFERENCING NEW TABLE AS inserted
  FOR EACH STATEMENT EXECUTE FUNCTION buffer.refuse_stray_transactions();
  CREATE TRIGGER transaction_enters_its_hour AFTER INSERT ON buffer.transaction
  REFERENCING NEW TABLE AS written
  FOR EACH STATEMENT EXECUTE FUNCTION buffer.enter_hour_of_transactions();
  EXECUTE 'CREATE VIEW buffer.hold_status AS ' || status;
  ALTER VIEW buffer.hold_status OWNER TO buffer;
  ALTER TABLE buffer.transaction OWNER TO buffer;
END
$$
"""


def measure(
    server: BenchmarkServer, *, settled: int = 1_000_000, due: int = 100_000, wallets: int = 100_000
) -> list[Figure]:
    """Return seconds on partitioned books, with those on unpartitioned books as yardstick."""
    with server.books() as whole:
        fill(server, whole, Shape(due=due, wallets=wallets, settled=settled))
        with server.books(copy_of=whole) as parted:
            server.admin(PARTITION, database=parted)
            server.admin("VACUUM (ANALYZE)", database=parted)
            seconds = {name: _seconds(server, name) for name in (whole, parted)}
    return [
        Figure(
            benchmark="partitions",
            name=f"{what}, {2 * settled:,} transactions by month",
            value=seconds[parted][what],
            unit="s",
            yardstick="in one table",
            yardstick_value=seconds[whole][what],
            ratio=seconds[parted][what] / seconds[whole][what],
            goal="no goal",
            met=None,
        )
        for what in seconds[whole]
    ]


def _whole_statement(connection: Connection, owner: str) -> list[StatementLine]:
    return list(every_item(lambda cursor: statement(connection, owner=owner, limit=LIMIT_MAX, cursor=cursor)))


def _seconds(server: BenchmarkServer, books: str) -> dict[str, float]:
    engine = server.engine(books)
    server.admin("CHECKPOINT")
    with engine.connect() as connection:
        first = first_hour(connection)
        assert first is not None
        hour = hour_of(first) + 30 * 24 * HOUR
        counting = [_timed(lambda: compute_counts(connection, start=hour, end=hour + HOUR)) for _ in range(5)]
        stating = [
            _timed(lambda owner=f"worker-{number}": _whole_statement(connection, owner))
            for number in range(0, 50, 10)
        ]
    draining = _timed(lambda: _drain(engine))
    engine.dispose()
    return {
        "a release of all that is due": draining,
        "the count of one hour": median(counting),
        "a wallet's statement": median(stating),
    }


def _drain(engine: Engine) -> None:
    with engine.connect() as connection:
        due_by = database_clock(connection)
        connection.execute(text("SELECT 1"))
    release_all_due(engine, due_by=due_by, source="benchmark")


def _timed(work: object) -> float:
    assert callable(work)
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
