"""How fast a backlog is released, beside the least work that PostgreSQL must do for the same rows.

The *floor* writes the same final rows by plain statements, unbatched, in one transaction, with the same
indexes, constraints and triggers: it locks nothing for others and checks nothing of its own. Each contender
drains a copy of the same books; what both leave behind is compared, row by row but for ids and times.
"""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, Final

import psycopg
from sqlalchemy import Engine, text

from benchmarks.figure import Figure
from benchmarks.fill import Shape, fill
from benchmarks.server import BenchmarkServer
from buffer_pipeline.database import database_clock
from buffer_pipeline.drain import drain_matured
from buffer_pipeline.reconcile import reconcile

HOLDS: Final = 1_000_000
WALLETS: Final = 100_000
ROWS_IN_THE_LOOP: Final = 5_000

FLOOR: Final = (
    """
    CREATE TEMPORARY TABLE moved ON COMMIT DROP AS
    SELECT hold_id, payee_wallet_id AS wallet_id, currency, amount_minor, release_date, release_hour
    FROM buffer.unsettled_hold WHERE state = 'BUFFERED' AND release_date <= now()
    """,
    "ANALYZE moved",
    "DELETE FROM buffer.unsettled_hold WHERE state = 'BUFFERED' AND release_date <= now()",
    "INSERT INTO buffer.batch (kind, source, due_by, recorded_at) VALUES ('DUE', 'floor', now(), now())",
    """
    INSERT INTO buffer.transaction (
      type, from_account, from_wallet_id, to_account, to_wallet_id, currency, amount_minor,
      balance_after_minor, hold_id, batch_id, recorded_at, release_date
    )
    SELECT
      'EARNING', 'PENDING_EARNINGS', moved.wallet_id, 'BALANCE', moved.wallet_id, moved.currency,
      moved.amount_minor, wallet.balance_minor + sum(moved.amount_minor) OVER (
        PARTITION BY moved.wallet_id ORDER BY moved.release_hour, moved.hold_id ROWS UNBOUNDED PRECEDING
      ),
      moved.hold_id, (SELECT max(batch_id) FROM buffer.batch), now(), moved.release_date
    FROM moved INNER JOIN buffer.wallet ON wallet.wallet_id = moved.wallet_id
    """,
    """
    INSERT INTO buffer.notification (type, owner, hold_id, currency, amount_minor, created_at)
    SELECT 'PAYMENT_RELEASED', wallet.owner, moved.hold_id, moved.currency, moved.amount_minor, now()
    FROM moved INNER JOIN buffer.wallet ON wallet.wallet_id = moved.wallet_id
    """,
    """
    UPDATE buffer.wallet SET
      balance_minor = wallet.balance_minor + total.amount_minor,
      pending_earnings_minor = wallet.pending_earnings_minor - total.amount_minor
    FROM (
      SELECT wallet_id, CAST(sum(amount_minor) AS bigint) AS amount_minor FROM moved GROUP BY wallet_id
    ) AS total
    WHERE total.wallet_id = wallet.wallet_id
    """,
)

# What a release leaves behind, but for ids, times and which batch it was.
OUTCOME: Final = """
SELECT
  (SELECT count(*) FROM buffer.unsettled_hold) AS unsettled,
  (SELECT md5(string_agg(concat_ws(',', wallet_id, balance_minor, pending_earnings_minor), ';' ORDER BY wallet_id))
   FROM buffer.wallet) AS wallets,
  (SELECT md5(string_agg(concat_ws(',', hold_id, type, from_account, from_wallet_id, to_account, to_wallet_id,
     currency, amount_minor, balance_after_minor, release_date), ';' ORDER BY hold_id, type))
   FROM buffer.transaction) AS transactions,
  (SELECT md5(string_agg(concat_ws(',', hold_id, type, owner, currency, amount_minor), ';' ORDER BY hold_id, type))
   FROM buffer.notification) AS notifications
"""
