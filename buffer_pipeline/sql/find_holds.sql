-- The holds with these references, with the content that an idempotent replay must repeat.
-- If there is one, writes the message of enter_hour.sql, once: a replay marks no hour.
SELECT
  hold_status.hold_id,
  hold_status.reference,
  hold_status.job,
  hold_status.title,
  payee.owner AS payee,
  payer.owner AS payer,
  hold_status.currency,
  hold_status.amount_minor,
  hold_status.held_at,
  hold_status.original_release_date,
  hold_status.release_date,
  hold_status.state,
  (
    SELECT
      pg_catalog.pg_logical_emit_message(pg_catalog.pg_current_xact_id() IS NOT NULL, 'buffer_pipeline', '')
  ) IS NOT NULL AS is_confirmed
FROM buffer.hold_status
INNER JOIN buffer.wallet AS payee ON hold_status.payee_wallet_id = payee.wallet_id
INNER JOIN buffer.wallet AS payer ON hold_status.payer_wallet_id = payer.wallet_id
WHERE hold_status.reference = any(CAST(:references AS text[]))
