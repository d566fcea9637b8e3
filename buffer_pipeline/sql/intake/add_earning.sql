-- (nothing) -> BUFFERED for one earning with shares whose reference is new and whose wallets exist. The payee's
-- share is the first of the arrays. The next statement, intake/buffer_holds.sql, moves the money.
-- Returns NULL, and adds nothing, in the cases of intake/add_hold.sql.
-- Marks the hour of :now before it waits for anything. Lock order: the job, the reference, the wallets by id.
WITH
share AS MATERIALIZED (
  SELECT
    given.kind,
    given.amount_minor,
    given.release_date,
    given.number,
    wallet.wallet_id,
    wallet.balance_minor + wallet.pending_earnings_minor AS wallet_minor
  FROM unnest(
    CAST(:kinds AS text[]), CAST(:owners AS text[]), CAST(:amounts_minor AS bigint[]),
    CAST(:release_dates AS timestamptz[])
  ) WITH ORDINALITY AS given (kind, owner, amount_minor, release_date, number)
  INNER JOIN buffer.wallet ON given.owner = wallet.owner AND wallet.currency = CAST(:currency AS text)
),

entered AS MATERIALIZED (
  SELECT
    payer.wallet_id AS payer_wallet_id,
    buffer.enter_hour(CAST(:now AS timestamptz)) AS done
  FROM buffer.wallet AS payer
  WHERE
    payer.owner = CAST(:payer AS text)
    AND payer.currency = CAST(:currency AS text)
    AND (SELECT count(*) FROM share) = pg_catalog.cardinality(CAST(:kinds AS text[]))
    -- A wallet that gets several shares has to fit their sum, which is at most :earning_minor.
    AND (SELECT max(share.wallet_minor) FROM share) <= 9223372036854775807 - CAST(:earning_minor AS bigint)
    AND NOT EXISTS (
      SELECT FROM buffer.hold
      WHERE hold.reference = CAST(:reference AS text) AND hold.earning_id IS NULL
    )
    AND (
      CAST(:has_rule AS boolean)
      OR (
        (
          SELECT rule_assignment.name
          FROM buffer.rule_assignment
          WHERE rule_assignment.owner = CAST(:payee AS text)
          ORDER BY rule_assignment.number DESC
          LIMIT 1
        ) IS NULL
        AND (
          SELECT hold_rule.retired_at IS NULL
          FROM buffer.hold_rule
          WHERE hold_rule.name = 'standard'
          ORDER BY hold_rule.version DESC
          LIMIT 1
        ) IS NOT TRUE
      )
    )
    AND NOT (
      pg_catalog.row_security_active('buffer.batch')
      AND CAST(:now AS timestamptz) > buffer.clock() + interval '1 day'
    )
    AND EXISTS (
      SELECT FROM buffer.currency
      WHERE currency.currency = CAST(:currency AS text) AND currency.places = CAST(:places AS smallint)
    )
),

its_job AS (
  INSERT INTO buffer.job AS existing (job, payer)
  SELECT
    CAST(:job AS text),
    CAST(:payer AS text)
  FROM entered
  ON CONFLICT (job) DO UPDATE SET open_backjob_id = NULL
  WHERE existing.payer = excluded.payer AND existing.open_backjob_id IS NULL
  RETURNING existing.job
),

first AS (
  INSERT INTO buffer.hold (
    reference, job, title, payee_wallet_id, payer_wallet_id,
    currency, amount_minor, held_at, original_release_date, earning_minor, metadata, rule_id
  )
  SELECT
    CAST(:reference AS text),
    CAST(:job AS text),
    CAST(:title AS text),
    share.wallet_id,
    entered.payer_wallet_id,
    CAST(:currency AS text),
    share.amount_minor,
    CAST(:held_at AS timestamptz),
    share.release_date,
    CAST(:earning_minor AS bigint),
    CAST(:metadata AS jsonb),
    CAST(:rule_id AS bigint)
  FROM entered
  CROSS JOIN share
  WHERE share.number = 1 AND EXISTS (SELECT FROM its_job)
  ON CONFLICT (reference) WHERE earning_id IS NULL DO NOTHING
  RETURNING
    hold_id, kind, payee_wallet_id, payer_wallet_id, currency, amount_minor,
    original_release_date AS release_date
),

others AS (
  INSERT INTO buffer.hold (
    reference, job, title, payee_wallet_id, payer_wallet_id,
    currency, amount_minor, held_at, original_release_date, kind, earning_id, rule_id
  )
  SELECT
    CAST(:reference AS text),
    CAST(:job AS text),
    CAST(:title AS text),
    share.wallet_id,
    first.payer_wallet_id,
    first.currency,
    share.amount_minor,
    CAST(:held_at AS timestamptz),
    share.release_date,
    share.kind,
    first.hold_id,
    CAST(:rule_id AS bigint)
  FROM first
  CROSS JOIN share
  WHERE share.number > 1
  ORDER BY share.number
  RETURNING
    hold_id, kind, payee_wallet_id, payer_wallet_id, currency, amount_minor,
    original_release_date AS release_date
),

added AS (
  SELECT * FROM first
  UNION ALL
  SELECT * FROM others
),

waiting AS (
  INSERT INTO buffer.unsettled_hold (hold_id, kind, payee_wallet_id, currency, amount_minor, release_date)
  SELECT
    hold_id,
    kind,
    payee_wallet_id,
    currency,
    amount_minor,
    release_date
  FROM added
),

locked_wallet AS MATERIALIZED (
  SELECT wallet_id
  FROM buffer.wallet
  WHERE wallet_id = any(ARRAY(SELECT payee_wallet_id FROM added))
  ORDER BY wallet_id
  FOR NO KEY UPDATE
)

SELECT
  pg_catalog.array_agg(hold_id ORDER BY hold_id) AS hold_ids,
  (SELECT count(*) FROM locked_wallet) AS wallets_locked
FROM added
