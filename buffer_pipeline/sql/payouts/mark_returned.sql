-- SENT | PAID -> RETURNED for the payouts :payout_ids of the locked batch, with the bank's :reasons: each amount
-- is back in its balance, out of TRANSIT, or out of EXTERNAL if it was reported as paid. Owners are notified.
-- The caller has locked the wallets. One row: how many were marked.
-- Several payouts of one wallet follow each other in the order of their ids, and so do their balances.
WITH
returned AS (
  UPDATE buffer.payout
  SET
    state = 'RETURNED',
    returned_at = CAST(:now AS timestamptz),
    return_reason = said.reason
  FROM unnest(CAST(:payout_ids AS bigint[]), CAST(:reasons AS text[])) AS said (payout_id, reason)
  WHERE
    payout.payout_id = said.payout_id
    AND payout.payout_batch_id = CAST(:payout_batch_id AS bigint)
    AND payout.state IN ('SENT', 'PAID')
  RETURNING payout.payout_id, payout.wallet_id, payout.currency, payout.amount_minor, payout.paid_at
),

credited AS (
  UPDATE buffer.wallet
  SET balance_minor = wallet.balance_minor + of_wallet.amount_minor
  FROM (
    SELECT
      wallet_id,
      CAST(sum(amount_minor) AS bigint) AS amount_minor
    FROM returned
    GROUP BY wallet_id
  ) AS of_wallet
  WHERE wallet.wallet_id = of_wallet.wallet_id
  RETURNING wallet.wallet_id, wallet.owner, wallet.balance_minor - of_wallet.amount_minor AS before_minor
),

line AS (
  INSERT INTO buffer.transaction (
    type, from_account, to_account, to_wallet_id, currency, amount_minor, balance_after_minor, payout_id,
    recorded_at
  )
  SELECT
    'PAYOUT_RETURNED',
    CASE WHEN returned.paid_at IS NULL THEN 'TRANSIT' ELSE 'EXTERNAL' END,
    'BALANCE',
    returned.wallet_id,
    returned.currency,
    returned.amount_minor,
    credited.before_minor + CAST(sum(returned.amount_minor) OVER so_far AS bigint),
    returned.payout_id,
    CAST(:now AS timestamptz)
  FROM returned
  INNER JOIN credited ON returned.wallet_id = credited.wallet_id
  WINDOW so_far AS (
    PARTITION BY returned.wallet_id
    ORDER BY returned.payout_id
  )
  ORDER BY returned.payout_id
  RETURNING transaction_id
),

notified AS (
  INSERT INTO buffer.notification (type, owner, currency, amount_minor, created_at, payout_id)
  SELECT
    'PAYOUT_RETURNED',
    credited.owner,
    returned.currency,
    returned.amount_minor,
    CAST(:now AS timestamptz),
    returned.payout_id
  FROM returned
  INNER JOIN credited ON returned.wallet_id = credited.wallet_id
  ORDER BY returned.payout_id
)

SELECT count(*) AS payouts FROM line
