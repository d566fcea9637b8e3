-- The digests of the transactions (lines) after :after_id up to :through_id, concatenated in the order of
-- their ids; NULLs if there are none.
-- A digest covers all of a line except its id, which the seal has. The two most frequent types are packed
-- into one block of SHA-256 each, if all columns that are not packed have the values that the type implies.
-- All other lines are digested as JSON; a column that came later is in it only if it has a value, so that the
-- digests of older lines stay. No two forms can be confused: the packings differ in length, and JSON
-- begins with [.
-- The rule is here and not in a database function, because the owner of the books could replace a function.
SELECT
  min(line.transaction_id) AS first_id,
  max(line.transaction_id) AS through_id,
  count(*) AS lines,
  string_agg(line.digest, CAST('' AS bytea) ORDER BY line.transaction_id) AS line_digests
FROM (
  SELECT
    transaction_id,
    substr(sha256(coalesce(
      CASE
        WHEN
          type = 'EARNING' AND from_account = 'PENDING_EARNINGS' AND to_account = 'BALANCE'
          AND from_wallet_id = to_wallet_id AND backjob_id IS NULL AND reference IS NULL
          AND batch_id BETWEEN 0 AND 2147483647
          AND from_balance_after_minor IS NULL AND debt_id IS NULL AND payout_id IS NULL
          THEN
            int8send(to_wallet_id) || int8send(amount_minor) || int8send(balance_after_minor)
            || int8send(hold_id) || int4send(CAST(batch_id AS integer))
            || timestamptz_send(recorded_at) || timestamptz_send(release_date) || textsend(currency)
        WHEN
          type = 'PENDING_EARNING' AND from_account = 'ESCROW' AND to_account = 'PENDING_EARNINGS'
          AND from_wallet_id IS NULL AND balance_after_minor IS NULL AND backjob_id IS NULL
          AND batch_id IS NULL AND reference IS NULL AND release_date IS NULL
          AND from_balance_after_minor IS NULL AND debt_id IS NULL AND payout_id IS NULL
          THEN
            int8send(to_wallet_id) || int8send(amount_minor) || int8send(hold_id)
            || timestamptz_send(recorded_at) || textsend(currency)
      END,
      convert_to(CAST(jsonb_build_array(
        type, from_account, from_wallet_id, to_account, to_wallet_id, currency, amount_minor,
        balance_after_minor, hold_id, backjob_id, batch_id, reference,
        extract(EPOCH FROM recorded_at), extract(EPOCH FROM release_date)
      )
      || CASE
        WHEN num_nonnulls(from_balance_after_minor, debt_id, payout_id) > 0
          THEN jsonb_build_array(from_balance_after_minor, debt_id, payout_id)
        ELSE jsonb_build_array()
      END AS text), 'UTF8')
    )), 1, 16) AS digest
  FROM buffer.transaction
  WHERE
    transaction_id > CAST(:after_id AS bigint)
    AND transaction_id <= CAST(:through_id AS bigint)
  ORDER BY transaction_id
) AS line
