-- What each of :hold_ids has earned, when last, and what claw-backs have taken of it. The caller has locked the
-- payees' wallets, so none of it changes.
SELECT
  asked.hold_id,
  CAST(coalesce(earned.amount_minor, 0) AS bigint) AS earned_minor,
  CAST(coalesce(given.amount_minor, 0) AS bigint) AS clawed_back_minor,
  earned.recorded_at AS earned_at
FROM pg_catalog.unnest(CAST(:hold_ids AS bigint[])) AS asked (hold_id)
CROSS JOIN LATERAL ( -- noqa: ST05
  SELECT
    sum(transaction.amount_minor) AS amount_minor,
    max(transaction.recorded_at) AS recorded_at
  FROM buffer.transaction
  -- Two partial indexes have a hold's transactions: one the EARNINGs, one the others.
  WHERE
    transaction.hold_id = asked.hold_id
    AND (transaction.type = 'EARNING' OR (transaction.type <> 'EARNING' AND transaction.type = 'EARNING_PART'))
) AS earned
CROSS JOIN LATERAL ( -- noqa: ST05
  SELECT sum(clawback_share.amount_minor) AS amount_minor
  FROM buffer.clawback_share
  WHERE clawback_share.hold_id = asked.hold_id
) AS given
ORDER BY asked.hold_id
