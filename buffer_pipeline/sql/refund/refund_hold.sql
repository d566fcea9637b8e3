-- FROZEN -> REFUNDED if all that a hold holds is refunded; otherwise FROZEN -> FROZEN. One hold, or shares of the
-- earning :earning_id.
-- The caller has locked the holds and then all wallets, and no backjob covers the holds. The freezes of a hold that
-- is refunded whole are closed. :hold_ids is sorted. :refunds_minor has the refund of each at the same position.
-- The payee is notified once for an earning, and the payer once, with the sum, about :named_id.
-- Returns the transaction with the reference, which is the first, and the sum of all. Returns no row if a wallet
-- movement has committed the reference first; then the caller must undo what else this statement has written.
WITH
settled AS (
  DELETE FROM buffer.unsettled_hold
  WHERE
    hold_id = any(CAST(:hold_ids AS bigint[]))
    AND state = 'FROZEN'
    AND amount_minor = (CAST(:refunds_minor AS bigint[]))[pg_catalog.width_bucket(hold_id, CAST(:hold_ids AS bigint[]))]
  RETURNING
    hold_id,
    release_date,
    amount_minor AS refund_minor
),

reduced AS (
  UPDATE buffer.unsettled_hold
  SET
    amount_minor
    = amount_minor - (CAST(:refunds_minor AS bigint[]))[pg_catalog.width_bucket(hold_id, CAST(:hold_ids AS bigint[]))]
  WHERE
    hold_id = any(CAST(:hold_ids AS bigint[]))
    AND state = 'FROZEN'
    AND amount_minor > (CAST(:refunds_minor AS bigint[]))[pg_catalog.width_bucket(hold_id, CAST(:hold_ids AS bigint[]))]
  RETURNING
    hold_id,
    release_date,
    (CAST(:refunds_minor AS bigint[]))[pg_catalog.width_bucket(hold_id, CAST(:hold_ids AS bigint[]))] AS refund_minor
),

refunded AS MATERIALIZED (
  SELECT
    hold.hold_id,
    hold.kind,
    hold.payee_wallet_id,
    hold.payer_wallet_id,
    hold.currency,
    outcome.release_date,
    outcome.refund_minor
  FROM (
    SELECT * FROM settled
    UNION ALL
    SELECT * FROM reduced
  ) AS outcome
  INNER JOIN buffer.hold ON outcome.hold_id = hold.hold_id
),

closed AS (
  UPDATE buffer.hold_freeze
  SET
    closed_by = :refunded_by,
    closing_reason = :reason,
    closed_at = CAST(:now AS timestamptz)
  WHERE hold_id = any(ARRAY(SELECT hold_id FROM settled)) AND closed_at IS NULL
),

opened_batch AS (
  INSERT INTO buffer.batch (kind, source, reason, earning_id, left_minor, recorded_at)
  SELECT
    'REFUND',
    :refunded_by,
    :reason,
    CAST(:earning_id AS bigint),
    CAST(:left_minor AS bigint),
    CAST(:now AS timestamptz)
  WHERE EXISTS (SELECT FROM refunded)
  RETURNING batch_id
),

payee AS (
  UPDATE buffer.wallet
  SET pending_earnings_minor = wallet.pending_earnings_minor - of_payee.refund_minor
  FROM (
    SELECT
      payee_wallet_id,
      CAST(sum(refund_minor) AS bigint) AS refund_minor
    FROM refunded
    GROUP BY payee_wallet_id
  ) AS of_payee
  WHERE wallet.wallet_id = of_payee.payee_wallet_id
  RETURNING wallet.wallet_id, wallet.owner
),

payer AS (
  UPDATE buffer.wallet
  SET balance_minor = wallet.balance_minor + of_payer.refund_minor
  FROM (
    SELECT
      payer_wallet_id,
      CAST(sum(refund_minor) AS bigint) AS refund_minor
    FROM refunded
    GROUP BY payer_wallet_id
  ) AS of_payer
  WHERE wallet.wallet_id = of_payer.payer_wallet_id
  RETURNING wallet.owner, wallet.balance_minor, of_payer.refund_minor
),

line AS (
  INSERT INTO buffer.transaction (
    type, from_account, from_wallet_id, to_account, to_wallet_id,
    currency, amount_minor, balance_after_minor, hold_id, batch_id, reference, recorded_at,
    release_date
  )
  SELECT
    'REFUND',
    'PENDING_EARNINGS',
    refunded.payee_wallet_id,
    'BALANCE',
    refunded.payer_wallet_id,
    refunded.currency,
    refunded.refund_minor,
    payer.balance_minor - payer.refund_minor
    + buffer.sum_minor(refunded.refund_minor) OVER (ORDER BY refunded.hold_id ROWS UNBOUNDED PRECEDING),
    refunded.hold_id,
    opened_batch.batch_id,
    CASE WHEN refunded.hold_id = (CAST(:hold_ids AS bigint[]))[1] THEN CAST(:reference AS text) END,
    CAST(:now AS timestamptz),
    refunded.release_date
  FROM refunded
  CROSS JOIN opened_batch
  CROSS JOIN payer
  ORDER BY refunded.hold_id
  ON CONFLICT (reference) WHERE reference IS NOT NULL DO NOTHING
  RETURNING transaction_id, reference, amount_minor
),

notified AS (
  INSERT INTO buffer.notification (type, owner, hold_id, currency, amount_minor, created_at)
  SELECT
    'PAYMENT_REFUNDED',
    side.owner,
    side.hold_id,
    side.currency,
    side.refund_minor,
    CAST(:now AS timestamptz)
  FROM (
    SELECT
      1 AS place,
      payee.owner,
      refunded.hold_id,
      refunded.currency,
      refunded.refund_minor
    FROM refunded
    INNER JOIN payee ON refunded.payee_wallet_id = payee.wallet_id
    WHERE
      refunded.kind = 'PAYEE'
      -- Also of a reserve that is refunded by its own id, while the payee's own share waits.
      OR (refunded.kind = 'RESERVE' AND refunded.hold_id = CAST(:named_id AS bigint))
      -- The owner of a fee or a tax is notified of it only if they want to be.
      OR buffer.notifies_of(refunded.hold_id, refunded.kind, payee.owner)
    UNION ALL
    SELECT
      2,
      payer.owner,
      CAST(:named_id AS bigint),
      (SELECT min(refunded.currency) FROM refunded),
      payer.refund_minor
    FROM payer
  ) AS side
  ORDER BY side.place, side.hold_id
)

SELECT
  min(transaction_id) AS transaction_id,
  CAST(sum(amount_minor) AS bigint) AS refunded_minor
FROM line
HAVING pg_catalog.count(reference) > 0
