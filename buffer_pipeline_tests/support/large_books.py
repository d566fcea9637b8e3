"""The content of large books, in SQL: settled holds, waiting ones, and work in progress."""

from typing import Final

import psycopg

from buffer_pipeline_tests.support.builders import NOON

SETTLED: Final = 30_000
DUE: Final = 6_000
WAITING: Final = 50_000
LAST: Final = SETTLED + DUE + WAITING
WALLETS: Final = 60_000
BACKJOBS: Final = 4_000
"""The number of backjobs, and of admin freezes. The last 200 of each are open."""

LARGE: Final = {
    "hold",
    "job",
    "unsettled_hold",
    "transaction",
    "notification",
    "delivery",
    "wallet",
    "hold_freeze",
    "backjob",
    "audit_line",
    "owner_freeze",
    "rule_assignment",
}

# Holds that are settled, over the 40 days before NOON.
HISTORY: Final = f"""
INSERT INTO buffer.currency (currency, places) VALUES ('PHP', 2);
INSERT INTO buffer.wallet (owner, currency, balance_minor, pending_earnings_minor)
SELECT 'owner-' || number, 'PHP', 1000000000, 1000000000 FROM generate_series(1, {WALLETS}) AS number;
INSERT INTO buffer.hold (
  reference, job, title, payee_wallet_id, payer_wallet_id, currency, amount_minor, held_at,
  original_release_date, metadata
)
SELECT
  'earning-' || number, 'job-' || number, 'Fix kitchen faucet',
  1 + number * 7919 % {WALLETS}, 1 + (number * 7919 + 1) % {WALLETS}, 'PHP', 10000,
  due.release_date - interval '7 days', due.release_date,
  CASE WHEN number % 3 = 0 THEN jsonb_build_object('order', number, 'shop', 'shop-' || number % 7) END
FROM generate_series(1, {LAST}) AS number
CROSS JOIN LATERAL (
  SELECT timestamptz '{NOON:%Y-%m-%d %H:%M:%S%z}' + interval '1 minute' * CASE
    WHEN number <= {SETTLED} THEN (number - {SETTLED}) * 60 * 24 * 40.0 / {SETTLED} - 60
    WHEN number <= {SETTLED + DUE} THEN -59.0 * (number % 100) / 100
    ELSE 1 + (number - {SETTLED + DUE}) * 60 * 24 * 6.0 / {WAITING}
  END AS release_date
) AS due
ORDER BY number;
INSERT INTO buffer.job (job, payer)
SELECT job, owner FROM buffer.hold INNER JOIN buffer.wallet ON wallet_id = payer_wallet_id ORDER BY hold_id;
INSERT INTO buffer.batch (kind, source, due_by, recorded_at)
SELECT 'DUE', 'test', moment, moment FROM (
  SELECT DISTINCT date_trunc('hour', original_release_date) + interval '1 hour' AS moment
  FROM buffer.hold WHERE hold_id <= {SETTLED}
) AS hour ORDER BY moment;
INSERT INTO buffer.transaction (
  type, from_account, to_account, from_wallet_id, to_wallet_id, currency, amount_minor, balance_after_minor,
  hold_id, batch_id, recorded_at, release_date
)
SELECT * FROM (
  SELECT 'PENDING_EARNING', 'ESCROW', 'PENDING_EARNINGS', CAST(NULL AS bigint), payee_wallet_id, currency,
    amount_minor, CAST(NULL AS bigint), hold_id, CAST(NULL AS bigint), held_at AS moment,
    CAST(NULL AS timestamptz)
  FROM buffer.hold
  UNION ALL
  SELECT 'EARNING', 'PENDING_EARNINGS', 'BALANCE', payee_wallet_id, payee_wallet_id, currency, amount_minor,
    amount_minor, hold_id, batch_id, batch.recorded_at, original_release_date
  FROM buffer.hold
  INNER JOIN buffer.batch ON date_trunc('hour', original_release_date) + interval '1 hour' = batch.recorded_at
  WHERE hold_id <= {SETTLED}
) AS line ORDER BY moment, hold_id;
INSERT INTO buffer.notification (
  type, owner, hold_id, currency, amount_minor, created_at, dispatched_at
)
SELECT 'PAYMENT_PENDING', owner, hold_id, 'PHP', amount_minor, held_at, held_at
FROM buffer.hold INNER JOIN buffer.wallet ON wallet_id = payee_wallet_id ORDER BY hold_id;
INSERT INTO buffer.delivery (
  notification_id, endpoint, owner, created_at, next_attempt_at, state, attempts, first_attempt_at, settled_at
)
SELECT notification_id, 'app', owner, created_at, created_at, 'DELIVERED', 1, created_at, created_at
FROM buffer.notification ORDER BY notification_id;
INSERT INTO buffer.backjob (
  job, requested_by, reason, requested_at, state, decided_by, decision_reason, decided_at
)
SELECT job, 'client-1', 'it leaks', held_at, 'REJECTED', 'admin-1', 'it does not', held_at
FROM buffer.hold WHERE hold_id <= {BACKJOBS} ORDER BY hold_id;
INSERT INTO buffer.hold_freeze (
  hold_id, kind, backjob_id, opened_by, reason, opened_at, closed_by, closing_reason, closed_at
)
SELECT hold_id, given.kind, CASE WHEN given.kind = 'BACKJOB' THEN backjob_id END, 'admin-1', 'a look',
  requested_at, 'admin-1', 'all is well', requested_at
FROM buffer.backjob INNER JOIN buffer.hold ON backjob.job = hold.job
CROSS JOIN unnest(ARRAY['BACKJOB', 'ADMIN']) AS given (kind)
ORDER BY backjob_id
"""

UNSETTLED: Final = f"""
INSERT INTO buffer.unsettled_hold (hold_id, state, payee_wallet_id, currency, amount_minor, release_date)
SELECT hold_id, CASE WHEN hold_id > {LAST - 400} THEN 'FROZEN' ELSE 'BUFFERED' END,
  payee_wallet_id, currency, amount_minor, original_release_date
FROM buffer.hold WHERE hold_id > {SETTLED} ORDER BY hold_id
"""

# In progress: open freezes, waiting messages, and some dead letters.
UNDER_WAY: Final = f"""
INSERT INTO buffer.backjob (job, requested_by, reason, requested_at)
SELECT job, 'client-1', 'it leaks', timestamptz '{NOON:%Y-%m-%d %H:%M:%S%z}'
FROM buffer.hold WHERE hold_id > {LAST - 200} ORDER BY hold_id;
UPDATE buffer.job SET open_backjob_id = backjob_id
FROM buffer.backjob WHERE backjob.job = job.job AND state = 'OPEN';
INSERT INTO buffer.hold_freeze (hold_id, kind, backjob_id, opened_by, reason, opened_at)
SELECT hold_id, 'BACKJOB', backjob_id, 'client-1', 'it leaks', requested_at
FROM buffer.backjob INNER JOIN buffer.hold ON backjob.job = hold.job
WHERE state = 'OPEN' ORDER BY backjob_id;
INSERT INTO buffer.hold_freeze (hold_id, kind, opened_by, reason, opened_at)
SELECT hold_id, 'ADMIN', 'admin-1', 'a look', timestamptz '{NOON:%Y-%m-%d %H:%M:%S%z}'
FROM buffer.hold
WHERE hold_id > {LAST - 400} AND hold_id <= {LAST - 200} ORDER BY hold_id;
INSERT INTO buffer.notification (type, owner, hold_id, currency, amount_minor, created_at, dispatched_at)
SELECT 'PAYMENT_RELEASED', 'owner-' || 1 + number % {WALLETS}, number, 'PHP', 10000,
  timestamptz '{NOON:%Y-%m-%d %H:%M:%S%z}',
  CASE WHEN number <= 5000 THEN timestamptz '{NOON:%Y-%m-%d %H:%M:%S%z}' END
FROM generate_series(1, 10000) AS number;
INSERT INTO buffer.delivery (notification_id, endpoint, owner, created_at, next_attempt_at)
SELECT notification_id, 'app', owner, created_at, created_at
FROM buffer.notification
WHERE type = 'PAYMENT_RELEASED' AND dispatched_at IS NOT NULL ORDER BY notification_id;
INSERT INTO buffer.delivery (
  notification_id, endpoint, owner, created_at, next_attempt_at, state, attempts, first_attempt_at,
  settled_at, reason
)
SELECT notification_id, 'mail', owner, created_at, created_at, 'DEAD', 5, created_at, created_at, 'no answer'
FROM buffer.notification WHERE notification_id <= 100 ORDER BY notification_id
"""


# Decisions: refunds by admins, deposits (every second one with a name), moved dates, freezes of owners, and
# rules.
DECIDED: Final = 20_000
DECISIONS: Final = f"""
INSERT INTO buffer.batch (kind, source, reason, recorded_at)
SELECT 'REFUND', 'admin-' || number % 50, 'a fraud',
  timestamptz '{NOON:%Y-%m-%d %H:%M:%S%z}' - interval '1 minute' * (2000 - number)
FROM generate_series(1, 2000) AS number;
INSERT INTO buffer.transaction (
  type, from_account, to_account, from_wallet_id, to_wallet_id, currency, amount_minor, balance_after_minor,
  hold_id, batch_id, reference, recorded_at, release_date
)
SELECT 'REFUND', 'PENDING_EARNINGS', 'BALANCE', payee_wallet_id, payer_wallet_id, 'PHP', 1, 1,
  hold_id, batch_id, 'refund-' || batch_id, recorded_at, original_release_date
FROM (
  SELECT batch_id, recorded_at, row_number() OVER (ORDER BY batch_id) AS number
  FROM buffer.batch WHERE kind = 'REFUND'
) AS refund INNER JOIN buffer.hold ON hold_id = number ORDER BY batch_id;
INSERT INTO buffer.transaction (
  type, from_account, to_account, to_wallet_id, currency, amount_minor, balance_after_minor, reference,
  recorded_at
)
SELECT 'DEPOSIT', 'EXTERNAL', 'BALANCE', number, 'PHP', 100, 100, 'deposit-' || number,
  timestamptz '{NOON:%Y-%m-%d %H:%M:%S%z}' - interval '1 minute' * ({DECIDED} - number)
FROM generate_series(1, {DECIDED}) AS number;
INSERT INTO buffer.audit_line (at, by, verb, owner, transaction_id)
SELECT recorded_at, 'admin-' || transaction_id % 50, 'DEPOSIT', 'owner-' || to_wallet_id, transaction_id
FROM buffer.transaction WHERE type = 'DEPOSIT' AND transaction_id % 2 = 0 ORDER BY transaction_id;
INSERT INTO buffer.audit_line (at, by, verb, owner, hold_id, reason, from_date, to_date)
SELECT timestamptz '{NOON:%Y-%m-%d %H:%M:%S%z}' - interval '1 minute' * ({DECIDED} - number),
  'admin-' || number % 50, 'RESCHEDULE', 'owner-' || payee_wallet_id, hold_id, 'abroad',
  original_release_date, original_release_date + interval '1 day'
FROM generate_series(1, {DECIDED}) AS number INNER JOIN buffer.hold ON hold_id = number ORDER BY number;
INSERT INTO buffer.owner_freeze (
  owner, kind, opened_by, reason, opened_at, holds_frozen, closed_by, closing_reason, closed_at, holds_resumed
)
SELECT 'owner-' || number, 'RISK', 'admin-' || number % 50, 'a look',
  timestamptz '{NOON:%Y-%m-%d %H:%M:%S%z}' - interval '1 minute' * ({DECIDED} - number), 0,
  'admin-' || number % 50, 'fine', timestamptz '{NOON:%Y-%m-%d %H:%M:%S%z}', 0
FROM generate_series(1, {DECIDED}) AS number;
INSERT INTO buffer.hold_rule (name, version, days, added_by, reason, added_at)
SELECT 'rule-' || number, 1, 3, 'admin-1', 'a contract', timestamptz '{NOON:%Y-%m-%d %H:%M:%S%z}'
FROM generate_series(1, 20) AS number;
INSERT INTO buffer.rule_assignment (owner, number, name, assigned_by, reason, assigned_at)
SELECT 'owner-' || number, 1, 'rule-' || 1 + number % 20, 'admin-' || number % 50, 'a contract',
  timestamptz '{NOON:%Y-%m-%d %H:%M:%S%z}' - interval '1 minute' * ({DECIDED} - number)
FROM generate_series(1, {DECIDED}) AS number
"""


def run_scripts(url: str, *scripts: str) -> None:
    # Triggers and foreign keys are off, because they would check each row.
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET session_replication_role = replica")
        for script in scripts:
            for statement in script.split(";\n"):
                connection.execute(statement.encode())
