-- BUFFERED -> BUFFERED with less, for each hold of :hold_ids that gives a part of what it holds; BUFFERED ->
-- RELEASED for one that gives all of it. :parts_minor has what each hold gives, at the same position.
-- The caller has locked the holds and then their wallets. Bound: the shares of one earning.
-- :left_minor is what all of the holds that were asked for hold after it. The batch keeps it: whether a part was asked
-- for cannot be seen from the transactions if each hold gave all or nothing.
-- A payee is notified of a part with what is still held and until when; the owner of a fee or a tax only if
-- they ask for it.
-- Returns what was taken out of the buffer, what the wallets were credited, and which lines were written. All must be
-- equal to what was asked.
WITH
released_whole AS (
  DELETE FROM buffer.unsettled_hold
  WHERE
    hold_id = any(CAST(:hold_ids AS bigint[]))
    AND state = 'BUFFERED'
    AND amount_minor
    = (CAST(:parts_minor AS bigint[]))[pg_catalog.array_position(CAST(:hold_ids AS bigint[]), hold_id)]
  RETURNING
    hold_id,
    kind,
    payee_wallet_id AS wallet_id,
    amount_minor AS part_minor,
    CAST(0 AS bigint) AS rest_minor,
    release_date
),

released_partly AS (
  UPDATE buffer.unsettled_hold
  SET
    amount_minor = amount_minor
    - (CAST(:parts_minor AS bigint[]))[pg_catalog.array_position(CAST(:hold_ids AS bigint[]), hold_id)]
  WHERE
    hold_id = any(CAST(:hold_ids AS bigint[]))
    AND state = 'BUFFERED'
    AND amount_minor
    > (CAST(:parts_minor AS bigint[]))[pg_catalog.array_position(CAST(:hold_ids AS bigint[]), hold_id)]
  RETURNING
    hold_id,
    kind,
    payee_wallet_id AS wallet_id,
    (CAST(:parts_minor AS bigint[]))[pg_catalog.array_position(CAST(:hold_ids AS bigint[]), hold_id)] AS part_minor,
    amount_minor AS rest_minor,
    release_date
),

released AS MATERIALIZED (
  SELECT
    outcome.*,
    buffer.sum_minor(part_minor) OVER (
      PARTITION BY wallet_id ORDER BY hold_id ROWS UNBOUNDED PRECEDING
    ) AS running_minor
  FROM (
    SELECT * FROM released_whole
    UNION ALL
    SELECT * FROM released_partly
  ) AS outcome
),

wallet_total AS MATERIALIZED (
  SELECT
    wallet_id,
    count(*) AS holds,
    CAST(sum(part_minor) AS bigint) AS amount_minor
  FROM released
  GROUP BY wallet_id
),

opened_batch AS (
  INSERT INTO buffer.batch (kind, source, reason, left_minor, recorded_at, reference, named_hold_id)
  SELECT
    'EARLY',
    :source,
    :reason,
    CAST(:left_minor AS bigint),
    CAST(:now AS timestamptz),
    CAST(:reference AS text),
    CAST(:named_hold_id AS bigint)
  WHERE EXISTS (SELECT FROM wallet_total)
  RETURNING batch_id
),

credited_wallet AS (
  UPDATE buffer.wallet
  SET
    balance_minor = wallet.balance_minor + wallet_total.amount_minor,
    pending_earnings_minor = wallet.pending_earnings_minor - wallet_total.amount_minor
  FROM wallet_total
  WHERE wallet.wallet_id = wallet_total.wallet_id
  RETURNING
    wallet.wallet_id,
    wallet.owner,
    wallet.currency,
    wallet_total.holds,
    wallet_total.amount_minor,
    wallet.balance_minor - wallet_total.amount_minor AS balance_before_minor,
    wallet.debt_minor
),

line AS (
  INSERT INTO buffer.transaction (
    type, from_account, from_wallet_id, to_account, to_wallet_id,
    currency, amount_minor, balance_after_minor, hold_id, batch_id, recorded_at,
    release_date
  )
  SELECT
    CASE WHEN released.rest_minor > 0 THEN 'EARNING_PART' ELSE 'EARNING' END,
    'PENDING_EARNINGS',
    released.wallet_id,
    'BALANCE',
    released.wallet_id,
    credited_wallet.currency,
    released.part_minor,
    credited_wallet.balance_before_minor + released.running_minor,
    released.hold_id,
    (SELECT batch_id FROM opened_batch),
    CAST(:now AS timestamptz),
    released.release_date
  FROM released
  INNER JOIN credited_wallet ON released.wallet_id = credited_wallet.wallet_id
  ORDER BY released.hold_id
  RETURNING amount_minor
),

notified AS (
  INSERT INTO buffer.notification (
    type, owner, hold_id, currency, amount_minor, left_minor, release_date, created_at
  )
  SELECT
    'PAYMENT_RELEASED',
    credited_wallet.owner,
    released.hold_id,
    credited_wallet.currency,
    released.part_minor,
    nullif(released.rest_minor, 0),
    CASE WHEN released.rest_minor > 0 THEN released.release_date END,
    CAST(:now AS timestamptz)
  FROM released
  INNER JOIN credited_wallet ON released.wallet_id = credited_wallet.wallet_id
  WHERE
    released.kind IN ('PAYEE', 'RESERVE')
    OR buffer.notifies_of(released.hold_id, released.kind, credited_wallet.owner)
  ORDER BY released.wallet_id, released.hold_id
)

SELECT
  (SELECT batch_id FROM opened_batch) AS batch_id,
  (SELECT coalesce(max(debt_minor), 0) > 0 FROM credited_wallet) AS has_debtors,
  (SELECT count(*) FROM released_whole) AS holds_released,
  (SELECT count(*) FROM released) AS holds_taken,
  (SELECT CAST(coalesce(sum(part_minor), 0) AS bigint) FROM released) AS taken_minor,
  (SELECT CAST(coalesce(sum(holds), 0) AS bigint) FROM credited_wallet) AS holds_credited,
  (SELECT CAST(coalesce(sum(amount_minor), 0) AS bigint) FROM credited_wallet) AS credited_minor,
  (SELECT count(*) FROM line) AS lines,
  (SELECT CAST(coalesce(sum(amount_minor), 0) AS bigint) FROM line) AS lines_minor
