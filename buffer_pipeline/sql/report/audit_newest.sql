-- The newest facts of the audit trail, of whatever owner and hold: at most :row_limit of those that match :acted_by
-- and :since where they are not NULL. A freeze of an owner has none here (audit_owners_and_rules.sql has it). A
-- freeze of an earning and its closing have one each: that of the first share.
-- Each part reads at most :row_limit rows by an index on the time, or on the person and the time.
WITH
newest_batch AS MATERIALIZED (
  SELECT
    batch_id,
    recorded_at
  FROM buffer.batch
  WHERE
    kind <> 'DUE'
    AND (CAST(:acted_by AS text) IS NULL OR source = CAST(:acted_by AS text))
    AND (CAST(:since AS timestamptz) IS NULL OR recorded_at >= CAST(:since AS timestamptz))
  ORDER BY recorded_at DESC
  LIMIT CAST(:row_limit AS bigint)
),

-- The lines at the moments of these batches, in one scan of the block-range index.
line_of_moment AS MATERIALIZED (
  SELECT
    transaction_id,
    batch_id,
    recorded_at
  FROM buffer.transaction
  WHERE recorded_at = any(ARRAY(SELECT DISTINCT recorded_at FROM newest_batch)) AND batch_id IS NOT NULL
),

newest AS (
  -- By a person, the audit line leads to a deposit or withdrawal. Otherwise its transaction leads to the line.
  (
    SELECT
      'LINE' AS source,
      audit_id AS id,
      at
    FROM buffer.audit_line
    WHERE
      (verb = 'RESCHEDULE' OR CAST(:acted_by AS text) IS NOT NULL)
      AND (CAST(:acted_by AS text) IS NULL OR by = CAST(:acted_by AS text))
      AND (CAST(:since AS timestamptz) IS NULL OR at >= CAST(:since AS timestamptz))
    ORDER BY at DESC
    LIMIT CAST(:row_limit AS bigint)
  )
  UNION ALL
  (
    SELECT
      'MOVED',
      transaction_id,
      recorded_at
    FROM buffer.transaction
    WHERE
      CAST(:acted_by AS text) IS NULL
      AND type IN ('DEPOSIT', 'WITHDRAWAL')
      AND (CAST(:since AS timestamptz) IS NULL OR recorded_at >= CAST(:since AS timestamptz))
    ORDER BY recorded_at DESC
    LIMIT CAST(:row_limit AS bigint)
  )
  UNION ALL
  (
    SELECT
      'OPENED',
      freeze_id,
      opened_at
    FROM buffer.hold_freeze
    WHERE
      owner_freeze_id IS NULL
      AND (CAST(:acted_by AS text) IS NULL OR opened_by = CAST(:acted_by AS text))
      AND (CAST(:since AS timestamptz) IS NULL OR opened_at >= CAST(:since AS timestamptz))
      AND earning_freeze_id IS NULL
    ORDER BY opened_at DESC
    LIMIT CAST(:row_limit AS bigint)
  )
  UNION ALL
  (
    SELECT
      'CLOSED',
      freeze_id,
      closed_at
    FROM buffer.hold_freeze
    WHERE
      owner_freeze_id IS NULL
      AND closed_at IS NOT NULL
      AND (CAST(:acted_by AS text) IS NULL OR closed_by = CAST(:acted_by AS text))
      AND (CAST(:since AS timestamptz) IS NULL OR closed_at >= CAST(:since AS timestamptz))
      AND NOT EXISTS (
        SELECT FROM buffer.hold_freeze AS first
        WHERE first.freeze_id = hold_freeze.earning_freeze_id AND first.closed_at = hold_freeze.closed_at
      )
      AND NOT EXISTS (
        SELECT FROM buffer.hold_freeze AS earlier
        WHERE
          earlier.earning_freeze_id = hold_freeze.earning_freeze_id
          AND earlier.freeze_id < hold_freeze.freeze_id
          AND earlier.closed_at = hold_freeze.closed_at
      )
    ORDER BY closed_at DESC
    LIMIT CAST(:row_limit AS bigint)
  )
  UNION ALL
  SELECT
    'BATCH',
    line_of_moment.transaction_id,
    line_of_moment.recorded_at
  FROM line_of_moment
  INNER JOIN newest_batch ON line_of_moment.batch_id = newest_batch.batch_id
  UNION ALL
  -- What a claw-back took of a hold as a debt only has no transaction.
  SELECT
    'DEBT',
    debt.debt_id,
    newest_batch.recorded_at
  FROM newest_batch
  INNER JOIN buffer.debt ON newest_batch.batch_id = debt.clawback_id
  WHERE NOT EXISTS (
    SELECT FROM buffer.transaction
    WHERE
      transaction.hold_id = debt.hold_id
      AND transaction.batch_id = debt.clawback_id
      AND transaction.type <> 'EARNING'
  )
)

SELECT
  source,
  id
FROM newest
ORDER BY at DESC, source ASC, id DESC
LIMIT CAST(:row_limit AS bigint)
