-- The next transactions of :owner's wallets after :key, by id: the newest first, or the oldest first if not
-- :newest. Of one :currency if it is given. Reads only.
-- `base_minor` and `pending_base_minor` are what the wallet held at :key: oldest first the sum of all its
-- lines up to it, newest first what the wallet holds now less its lines from there on, which are those from
-- :passed_from to :passed_to. They come with the lines from one snapshot. Their time grows with the number of
-- lines on that side of :key; a first page has none.
-- `snapshot` names what all statements of the transaction see; NULL if each sees what was committed before
-- it.
SELECT
  line.transaction_id,
  line.type,
  line.amount_minor,
  line.currency,
  line.places,
  line.change_minor,
  line.pending_change_minor,
  line.base_minor,
  line.pending_base_minor,
  line.hold_id,
  line.kind,
  line.backjob_id,
  line.debt_id,
  line.payout_id,
  line.reference,
  line.job,
  line.title,
  line.recorded_at,
  CASE WHEN pg_catalog.current_setting('transaction_isolation') IN ('repeatable read', 'serializable')
    THEN CAST(pg_catalog.pg_current_snapshot() AS text)
  END AS snapshot
FROM buffer.statement_lines(
  CAST(:owner AS text),
  CAST(:currency AS text),
  CAST(:newest AS boolean),
  CAST(:key AS bigint),
  CAST(:passed_from AS bigint),
  CAST(:passed_to AS bigint),
  CAST(:row_limit AS bigint)
) AS line
ORDER BY CASE WHEN CAST(:newest AS boolean) THEN -line.transaction_id ELSE line.transaction_id END
