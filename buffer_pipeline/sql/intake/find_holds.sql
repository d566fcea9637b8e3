-- The earnings with these references, with the content that an idempotent replay must repeat. An earning is
-- shown by its first share, the payee's; "amount_minor" is that of the whole earning.
-- If there is one, writes the WAL message of hours/enter_hour.sql, once, because a replay marks no hour.
SELECT
  hold_status.hold_id,
  hold_status.reference,
  hold_status.job,
  hold_status.title,
  payee.owner AS payee,
  payer.owner AS payer,
  hold_status.currency,
  coalesce(hold_status.earning_minor, hold_status.amount_minor) AS amount_minor,
  hold_status.held_at,
  hold_status.original_release_date,
  hold_status.release_date,
  hold_status.state,
  coalesce(hold_rule.name, 'standard') AS rule,
  -- The shares, the payee's first, as arrays of the same length; NULL if the whole earning is the payee's.
  shares.*,
  CAST(hold_status.metadata AS text) AS metadata,
  (
    SELECT
      pg_catalog.pg_logical_emit_message(pg_catalog.pg_current_xact_id() IS NOT NULL, 'buffer_pipeline', '')
  ) IS NOT NULL AS is_confirmed
FROM buffer.hold_status
INNER JOIN buffer.wallet AS payee ON hold_status.payee_wallet_id = payee.wallet_id
INNER JOIN buffer.wallet AS payer ON hold_status.payer_wallet_id = payer.wallet_id
LEFT JOIN buffer.hold_rule ON hold_status.rule_id = hold_rule.rule_id
CROSS JOIN LATERAL (
  SELECT
    pg_catalog.array_agg(share.hold_id ORDER BY share.hold_id) AS share_ids,
    pg_catalog.array_agg(share.kind ORDER BY share.hold_id) AS share_kinds,
    pg_catalog.array_agg(owner.owner ORDER BY share.hold_id) AS share_owners,
    pg_catalog.array_agg(share.amount_minor ORDER BY share.hold_id) AS shares_minor,
    pg_catalog.array_agg(share.original_release_date ORDER BY share.hold_id) AS share_dates
  FROM buffer.hold AS share
  INNER JOIN buffer.wallet AS owner ON share.payee_wallet_id = owner.wallet_id
  WHERE
    hold_status.earning_minor IS NOT NULL
    AND (share.hold_id = hold_status.hold_id OR share.earning_id = hold_status.hold_id)
) AS shares
WHERE hold_status.reference = any(CAST(:references AS text[])) AND hold_status.earning_id IS NULL
