-- The holds with these references, with the content that an idempotent replay must repeat.
SELECT
  hold.hold_id,
  hold.reference,
  hold.job,
  hold.title,
  payee.owner AS payee,
  payer.owner AS payer,
  hold.currency,
  hold.amount_minor,
  hold.held_at,
  hold.original_release_date,
  hold.release_date,
  hold.state
FROM buffer.hold
INNER JOIN buffer.wallet AS payee ON hold.payee_wallet_id = payee.wallet_id
INNER JOIN buffer.wallet AS payer ON hold.payer_wallet_id = payer.wallet_id
WHERE hold.reference = any(CAST(:references AS text[]))
