-- Locks, by id, the wallets whose owner's newest schedule is among :schedules and that have a balance, of owners who
-- are not frozen and owe nothing. The schedule was set before the end (UTC) of its day in :days, which has one day for
-- each of :schedules. Returns the ids as one array, and the day of each as another one, as text.
-- request_scheduled.sql checks minimums and destinations.
-- Reads the schedules of all owners who have one; each wallet is looked up by its owner.
WITH
due AS (
  SELECT
    given.schedule,
    given.day,
    CAST(CAST(given.day AS date) + 1 AS timestamp) AT TIME ZONE 'UTC' AS day_end
  FROM unnest(CAST(:schedules AS text[]), CAST(:days AS text[])) AS given (schedule, day)
),

scheduled AS MATERIALIZED (
  SELECT DISTINCT ON (owner)
    owner,
    schedule,
    set_at
  FROM buffer.payout_schedule
  ORDER BY owner ASC, number DESC
),

locked AS MATERIALIZED (
  SELECT
    wallet.wallet_id,
    due.day
  FROM scheduled
  INNER JOIN due ON scheduled.schedule = due.schedule AND scheduled.set_at < due.day_end
  INNER JOIN buffer.wallet ON scheduled.owner = wallet.owner
  WHERE
    wallet.balance_minor > 0
    AND wallet.owner_freeze_id IS NULL
    AND (
      SELECT max(other.debt_minor)
      FROM buffer.wallet AS other
      WHERE other.owner = wallet.owner
    ) = 0
  ORDER BY wallet.wallet_id
  FOR NO KEY UPDATE OF wallet
)

SELECT
  coalesce(array_agg(locked.wallet_id ORDER BY locked.wallet_id), '{}') AS wallet_ids,
  coalesce(array_agg(locked.day ORDER BY locked.wallet_id), '{}') AS days
FROM locked
