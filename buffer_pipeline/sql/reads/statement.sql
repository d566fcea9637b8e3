-- The next transactions of :owner's wallets after :key, by id: the newest first, or the oldest first if not
-- :newest. Of one :currency if it is given. Reads only.
-- `base_minor` and `pending_base_minor` are what the wallet held at :key: oldest first the sum of all its
-- lines up to it, newest first what the wallet holds now less its lines from there on. They come with the
-- lines from one snapshot. Their time grows with the number of lines on that side of :key; a first page has
-- none.
-- `snapshot` names what all statements of the transaction see; NULL if each sees what was committed before
-- it.
-- Incoming transactions are searched in each generation (docs/decisions/0019). Each LATERAL subquery looks up
-- one transaction or hold, or reads those of one wallet, by an index; its ORDER BY keeps it a subquery.
WITH
generation AS MATERIALIZED (
  SELECT pg_catalog.generate_series(0, newest.transaction_id >> 17) AS generation
  FROM (
    SELECT max(transaction.transaction_id) AS transaction_id
    FROM buffer.transaction
  ) AS newest
),

owned AS MATERIALIZED (
  SELECT
    wallet.wallet_id,
    wallet.balance_minor,
    wallet.pending_earnings_minor
  FROM buffer.wallet
  WHERE
    wallet.owner = CAST(:owner AS text)
    AND (CAST(:currency AS text) IS NULL OR wallet.currency = CAST(:currency AS text))
),

passed_line AS (
  SELECT
    owned.wallet_id,
    passed.*
  FROM owned
  CROSS JOIN generation
  CROSS JOIN LATERAL (
    SELECT
      transaction.from_account,
      transaction.from_wallet_id,
      transaction.to_account,
      transaction.to_wallet_id,
      transaction.amount_minor
    FROM buffer.transaction
    WHERE
      transaction.transaction_id >> 17 = generation.generation
      AND transaction.to_wallet_id = owned.wallet_id
      AND transaction.transaction_id BETWEEN CAST(:passed_from AS bigint) AND CAST(:passed_to AS bigint)
    ORDER BY transaction.transaction_id
  ) AS passed
  UNION ALL
  SELECT
    owned.wallet_id,
    passed.*
  FROM owned
  CROSS JOIN LATERAL (
    SELECT
      transaction.from_account,
      transaction.from_wallet_id,
      transaction.to_account,
      transaction.to_wallet_id,
      transaction.amount_minor
    FROM buffer.transaction
    WHERE
      transaction.from_wallet_id = owned.wallet_id
      AND transaction.from_wallet_id IS DISTINCT FROM transaction.to_wallet_id
      AND transaction.transaction_id BETWEEN CAST(:passed_from AS bigint) AND CAST(:passed_to AS bigint)
    ORDER BY transaction.transaction_id
  ) AS passed
),

passed_sum AS MATERIALIZED (
  SELECT
    passed_line.wallet_id,
    CAST(sum(CASE
      WHEN to_wallet_id = wallet_id AND to_account = 'BALANCE' THEN amount_minor
      WHEN from_wallet_id = wallet_id AND from_account = 'BALANCE' THEN -amount_minor
      ELSE 0
    END) AS bigint) AS change_minor,
    CAST(sum(CASE
      WHEN to_wallet_id = wallet_id AND to_account = 'PENDING_EARNINGS' THEN amount_minor
      WHEN from_wallet_id = wallet_id AND from_account = 'PENDING_EARNINGS' THEN -amount_minor
      ELSE 0
    END) AS bigint) AS pending_change_minor
  FROM passed_line
  GROUP BY passed_line.wallet_id
),

next_line AS (
  SELECT
    owned.wallet_id,
    into_wallet.transaction_id
  FROM owned
  CROSS JOIN generation
  CROSS JOIN LATERAL (
    (
      SELECT transaction.transaction_id
      FROM buffer.transaction
      WHERE
        CAST(:newest AS boolean)
        AND transaction.transaction_id >> 17 = generation.generation
        AND transaction.to_wallet_id = owned.wallet_id
        AND transaction.transaction_id < CAST(:key AS bigint)
      ORDER BY transaction.transaction_id DESC
      LIMIT CAST(:row_limit AS bigint)
    )
    UNION ALL
    (
      SELECT transaction.transaction_id
      FROM buffer.transaction
      WHERE
        NOT CAST(:newest AS boolean)
        AND transaction.transaction_id >> 17 = generation.generation
        AND transaction.to_wallet_id = owned.wallet_id
        AND transaction.transaction_id > CAST(:key AS bigint)
      ORDER BY transaction.transaction_id
      LIMIT CAST(:row_limit AS bigint)
    )
  ) AS into_wallet
  UNION ALL
  SELECT
    owned.wallet_id,
    out_of_wallet.transaction_id
  FROM owned
  CROSS JOIN LATERAL (
    (
      SELECT transaction.transaction_id
      FROM buffer.transaction
      WHERE
        CAST(:newest AS boolean)
        AND transaction.from_wallet_id = owned.wallet_id
        AND transaction.from_wallet_id IS DISTINCT FROM transaction.to_wallet_id
        AND transaction.transaction_id < CAST(:key AS bigint)
      ORDER BY transaction.transaction_id DESC
      LIMIT CAST(:row_limit AS bigint)
    )
    UNION ALL
    (
      SELECT transaction.transaction_id
      FROM buffer.transaction
      WHERE
        NOT CAST(:newest AS boolean)
        AND transaction.from_wallet_id = owned.wallet_id
        AND transaction.from_wallet_id IS DISTINCT FROM transaction.to_wallet_id
        AND transaction.transaction_id > CAST(:key AS bigint)
      ORDER BY transaction.transaction_id
      LIMIT CAST(:row_limit AS bigint)
    )
  ) AS out_of_wallet
),

chosen AS MATERIALIZED (
  SELECT
    next_line.wallet_id,
    next_line.transaction_id
  FROM next_line
  ORDER BY CASE WHEN CAST(:newest AS boolean) THEN -next_line.transaction_id ELSE next_line.transaction_id END
  LIMIT CAST(:row_limit AS bigint)
)

SELECT
  chosen.wallet_id,
  line.transaction_id,
  line.type,
  line.amount_minor,
  line.currency,
  currency.places,
  CASE
    WHEN line.to_wallet_id = chosen.wallet_id AND line.to_account = 'BALANCE' THEN line.amount_minor
    WHEN line.from_wallet_id = chosen.wallet_id AND line.from_account = 'BALANCE' THEN -line.amount_minor
    ELSE 0
  END AS change_minor,
  CASE
    WHEN line.to_wallet_id = chosen.wallet_id AND line.to_account = 'PENDING_EARNINGS' THEN line.amount_minor
    WHEN line.from_wallet_id = chosen.wallet_id AND line.from_account = 'PENDING_EARNINGS'
      THEN -line.amount_minor
    ELSE 0
  END AS pending_change_minor,
  CASE WHEN CAST(:newest AS boolean) THEN owned.balance_minor - coalesce(passed_sum.change_minor, 0)
    ELSE coalesce(passed_sum.change_minor, 0)
  END AS base_minor,
  CASE
    WHEN CAST(:newest AS boolean)
      THEN owned.pending_earnings_minor - coalesce(passed_sum.pending_change_minor, 0)
    ELSE coalesce(passed_sum.pending_change_minor, 0)
  END AS pending_base_minor,
  CASE WHEN pg_catalog.current_setting('transaction_isolation') IN ('repeatable read', 'serializable')
    THEN CAST(pg_catalog.pg_current_snapshot() AS text)
  END AS snapshot,
  line.hold_id,
  held.kind,
  line.backjob_id,
  line.debt_id,
  line.payout_id,
  line.reference,
  held.job,
  held.title,
  line.recorded_at
FROM chosen
INNER JOIN owned ON chosen.wallet_id = owned.wallet_id
CROSS JOIN LATERAL (
  SELECT transaction.*
  FROM buffer.transaction
  WHERE transaction.transaction_id = chosen.transaction_id
  ORDER BY transaction.transaction_id
  LIMIT 1
) AS line
INNER JOIN buffer.currency ON line.currency = currency.currency
LEFT JOIN passed_sum ON chosen.wallet_id = passed_sum.wallet_id
LEFT JOIN LATERAL (
  SELECT
    hold.kind,
    hold.job,
    hold.title
  FROM buffer.hold
  WHERE hold.hold_id = line.hold_id
  ORDER BY hold.hold_id
  LIMIT 1
) AS held ON TRUE
ORDER BY
  CASE WHEN CAST(:newest AS boolean) THEN -chosen.transaction_id ELSE chosen.transaction_id END,
  chosen.wallet_id
