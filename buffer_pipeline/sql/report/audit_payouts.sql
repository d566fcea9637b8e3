-- Who did what to payouts: requests and cancellations, batches that were made, approved, sent, exported or cancelled,
-- status files, destinations and schedules. The newest first, at most :row_limit of those that match every filter
-- which is not NULL: :owner, :acted_by and :since. A batch and its files have no owner.
-- Each part reads at most :row_limit rows by an index on the time, or on the person and the time, or all rows of
-- :owner by an index on it. Batches and their files are few, and are read whole. No account, only its mask.
WITH
of_owner AS MATERIALIZED (
  SELECT wallet_id
  FROM buffer.wallet
  WHERE owner = CAST(:owner AS text)
),

fact AS (
  (
    SELECT
      requested_at AS at,
      requested_by AS by,
      'REQUEST_PAYOUT' AS verb,
      CAST(NULL AS text) AS owner,
      override_reason AS reason,
      wallet_id,
      payout_id,
      CAST(NULL AS bigint) AS payout_batch_id,
      currency,
      amount_minor,
      reference,
      CASE WHEN override_reason IS NOT NULL THEN TRUE END AS override,
      CAST(NULL AS jsonb) AS detail,
      payout_id AS id
    FROM buffer.payout
    WHERE
      (CAST(:owner AS text) IS NULL OR wallet_id = any(ARRAY(SELECT of_owner.wallet_id FROM of_owner)))
      AND (CAST(:acted_by AS text) IS NULL OR requested_by = CAST(:acted_by AS text))
      AND (CAST(:since AS timestamptz) IS NULL OR requested_at >= CAST(:since AS timestamptz))
    ORDER BY requested_at DESC, payout_id DESC
    LIMIT CAST(:row_limit AS bigint)
  )
  UNION ALL
  (
    SELECT
      cancelled_at,
      cancelled_by,
      'CANCEL_PAYOUT',
      NULL,
      cancellation_reason,
      wallet_id,
      payout_id,
      NULL,
      currency,
      amount_minor,
      NULL,
      NULL,
      NULL,
      payout_id
    FROM buffer.payout
    WHERE
      cancelled_at IS NOT NULL
      AND (CAST(:owner AS text) IS NULL OR wallet_id = any(ARRAY(SELECT of_owner.wallet_id FROM of_owner)))
      AND (CAST(:acted_by AS text) IS NULL OR cancelled_by = CAST(:acted_by AS text))
      AND (CAST(:since AS timestamptz) IS NULL OR cancelled_at >= CAST(:since AS timestamptz))
    ORDER BY cancelled_at DESC, payout_id DESC
    LIMIT CAST(:row_limit AS bigint)
  )
  UNION ALL
  SELECT
    step.at,
    step.by,
    step.verb,
    NULL,
    step.reason,
    NULL,
    NULL,
    payout_batch.payout_batch_id,
    payout_batch.currency,
    payout_batch.amount_minor,
    NULL,
    NULL,
    jsonb_build_object('payouts', payout_batch.payouts, 'method', payout_batch.method),
    payout_batch.payout_batch_id
  FROM buffer.payout_batch
  CROSS JOIN LATERAL (
    VALUES
    ('MAKE_PAYOUT_BATCH', payout_batch.made_by, payout_batch.made_at, CAST(NULL AS text)),
    ('APPROVE_PAYOUT_BATCH', payout_batch.approved_by, payout_batch.approved_at, NULL),
    ('SEND_PAYOUT_BATCH', payout_batch.sent_by, payout_batch.sent_at, NULL),
    (
      'CANCEL_PAYOUT_BATCH', payout_batch.cancelled_by, payout_batch.cancelled_at,
      payout_batch.cancellation_reason
    )
  ) AS step (verb, by, at, reason)
  WHERE
    CAST(:owner AS text) IS NULL
    AND step.at IS NOT NULL
    AND (CAST(:acted_by AS text) IS NULL OR step.by = CAST(:acted_by AS text))
    AND (CAST(:since AS timestamptz) IS NULL OR step.at >= CAST(:since AS timestamptz))
  UNION ALL
  SELECT
    file.imported_at,
    file.imported_by,
    'MARK_PAYOUTS',
    NULL,
    NULL,
    NULL,
    NULL,
    file.payout_batch_id,
    NULL,
    NULL,
    NULL,
    NULL,
    jsonb_build_object(
      'paid', file.paid, 'returned', file.returned, 'unknown', cardinality(file.unknown),
      'differing', cardinality(file.differing), 'conflicting', cardinality(file.conflicting)
    ),
    file.payout_batch_id
  FROM buffer.payout_status_file AS file
  WHERE
    CAST(:owner AS text) IS NULL
    AND (CAST(:acted_by AS text) IS NULL OR file.imported_by = CAST(:acted_by AS text))
    AND (CAST(:since AS timestamptz) IS NULL OR file.imported_at >= CAST(:since AS timestamptz))
  UNION ALL
  SELECT
    exported.exported_at,
    exported.exported_by,
    'EXPORT_PAYOUT_BATCH',
    NULL,
    NULL,
    NULL,
    NULL,
    exported.payout_batch_id,
    NULL,
    NULL,
    NULL,
    NULL,
    jsonb_build_object('format', exported.format, 'number', exported.number, 'sha256', encode(exported.digest, 'hex')),
    exported.payout_batch_id
  FROM buffer.payout_export AS exported
  WHERE
    CAST(:owner AS text) IS NULL
    AND (CAST(:acted_by AS text) IS NULL OR exported.exported_by = CAST(:acted_by AS text))
    AND (CAST(:since AS timestamptz) IS NULL OR exported.exported_at >= CAST(:since AS timestamptz))
  UNION ALL
  (
    SELECT
      set_at,
      set_by,
      'SET_DESTINATION',
      owner,
      reason,
      NULL,
      NULL,
      NULL,
      NULL,
      NULL,
      NULL,
      NULL,
      jsonb_build_object('method', method, 'account', masked, 'version', version),
      destination_id
    FROM buffer.payout_destination
    WHERE
      (CAST(:owner AS text) IS NULL OR owner = CAST(:owner AS text))
      AND (CAST(:acted_by AS text) IS NULL OR set_by = CAST(:acted_by AS text))
      AND (CAST(:since AS timestamptz) IS NULL OR set_at >= CAST(:since AS timestamptz))
    ORDER BY set_at DESC, destination_id DESC
    LIMIT CAST(:row_limit AS bigint)
  )
  UNION ALL
  (
    SELECT
      set_at,
      set_by,
      'SET_PAYOUT_SCHEDULE',
      owner,
      reason,
      NULL,
      NULL,
      NULL,
      NULL,
      NULL,
      NULL,
      NULL,
      jsonb_build_object('schedule', schedule),
      number
    FROM buffer.payout_schedule
    WHERE
      (CAST(:owner AS text) IS NULL OR owner = CAST(:owner AS text))
      AND (CAST(:acted_by AS text) IS NULL OR set_by = CAST(:acted_by AS text))
      AND (CAST(:since AS timestamptz) IS NULL OR set_at >= CAST(:since AS timestamptz))
    ORDER BY set_at DESC, number DESC, owner ASC
    LIMIT CAST(:row_limit AS bigint)
  )
),

newest AS (
  SELECT *
  FROM fact
  ORDER BY at DESC, id DESC, verb DESC, owner ASC
  LIMIT CAST(:row_limit AS bigint)
)

SELECT
  newest.at,
  newest.by,
  newest.verb,
  coalesce(newest.owner, wallet.owner) AS owner,
  newest.reason,
  newest.payout_id,
  newest.payout_batch_id,
  newest.amount_minor,
  newest.currency,
  newest.reference,
  newest.override,
  CAST(newest.detail AS text) AS detail
FROM newest
LEFT JOIN buffer.wallet ON newest.wallet_id = wallet.wallet_id
ORDER BY newest.at DESC, newest.id DESC, newest.verb DESC, newest.owner ASC
