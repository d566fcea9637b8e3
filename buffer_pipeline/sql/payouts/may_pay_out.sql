-- Whether this login may request payouts and make batches of them: a member of buffer_payouts may, a releaser may not.
SELECT
  has_any_column_privilege('buffer.payout', 'INSERT')
  AND has_any_column_privilege('buffer.payout_batch', 'INSERT') AS may,
  CAST(current_user AS text) AS login
