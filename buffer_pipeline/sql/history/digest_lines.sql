-- The digests of the lines behind :after_id up to :through_id, one behind the other by id; NULLs where there are none.
-- What a line says, all of it but its id, which the seal has. The two kinds that there are many of are packed into one
-- block of SHA-256 each, as long as what is not in the packing is as the kind has it; a line for which that is not so,
-- and any other, is told in JSON. No packing can be taken for another: their lengths differ, and JSON begins with [.
-- It stands here and not in a function of the database, which whoever owns the books could replace.
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
          THEN
            int8send(to_wallet_id) || int8send(amount_minor) || int8send(balance_after_minor)
            || int8send(hold_id) || int4send(CAST(batch_id AS integer))
            || timestamptz_send(recorded_at) || timestamptz_send(release_date) || textsend(currency)
        WHEN
          type = 'PENDING_EARNING' AND from_account = 'ESCROW' AND to_account = 'PENDING_EARNINGS'
          AND from_wallet_id IS NULL AND balance_after_minor IS NULL AND backjob_id IS NULL
          AND batch_id IS NULL AND reference IS NULL AND release_date IS NULL
          THEN
            int8send(to_wallet_id) || int8send(amount_minor) || int8send(hold_id)
            || timestamptz_send(recorded_at) || textsend(currency)
      END,
      convert_to(CAST(jsonb_build_array(
        type, from_account, from_wallet_id, to_account, to_wallet_id, currency, amount_minor,
        balance_after_minor, hold_id, backjob_id, batch_id, reference,
        extract(EPOCH FROM recorded_at), extract(EPOCH FROM release_date)
      ) AS text), 'UTF8')
    )), 1, 16) AS digest
  FROM buffer.transaction
  WHERE
    transaction_id > CAST(:after_id AS bigint)
    AND transaction_id <= CAST(:through_id AS bigint)
  ORDER BY transaction_id
) AS line
