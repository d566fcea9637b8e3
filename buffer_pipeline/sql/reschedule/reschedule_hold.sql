-- BUFFERED -> BUFFERED or FROZEN -> FROZEN with another release date, for each of :hold_ids: one hold, or an
-- earning's own hold and the shares that have the same date. The release hours follow it. The caller has locked
-- them; the ids are sorted, and the first is the hold that was named.
-- Writes for each who moved it and why; the line of the first has the reference, and if there are several, all
-- lines list them. Notifies the payee, who is told of a reserve only if it was named; the owner of a fee or a
-- tax only if they ask for it.
-- Returns the holds that were moved. A hold that is settled, or that does not have :from_date, is left out, and
-- the caller must undo the rest.
WITH
moved AS (
  UPDATE buffer.unsettled_hold
  SET release_date = CAST(:to_date AS timestamptz)
  WHERE
    hold_id = any(CAST(:hold_ids AS bigint[]))
    AND release_date = CAST(:from_date AS timestamptz)
  RETURNING
    hold_id,
    kind,
    payee_wallet_id,
    currency,
    amount_minor
),

with_owner AS (
  SELECT
    moved.*,
    payee.owner
  FROM moved
  INNER JOIN buffer.wallet AS payee ON moved.payee_wallet_id = payee.wallet_id
),

line AS (
  INSERT INTO buffer.audit_line (
    at, by, verb, owner, hold_id, reference, reason, from_date, to_date, detail
  )
  SELECT
    CAST(:now AS timestamptz),
    CAST(:moved_by AS text),
    'RESCHEDULE',
    owner,
    hold_id,
    CASE WHEN hold_id = (CAST(:hold_ids AS bigint[]))[1] THEN CAST(:reference AS text) END,
    CAST(:reason AS text),
    CAST(:from_date AS timestamptz),
    CAST(:to_date AS timestamptz),
    CASE
      WHEN pg_catalog.cardinality(CAST(:hold_ids AS bigint[])) = 1
        THEN pg_catalog.jsonb_build_object('as_admin', CAST(:as_admin AS boolean))
      ELSE pg_catalog.jsonb_build_object(
        'as_admin', CAST(:as_admin AS boolean), 'hold_ids', CAST(:hold_ids AS bigint[])
      )
    END
  FROM with_owner
  ORDER BY hold_id
),

notified AS (
  INSERT INTO buffer.notification (
    type, owner, hold_id, currency, amount_minor, release_date, created_at
  )
  SELECT
    'PAYMENT_RESCHEDULED',
    owner,
    hold_id,
    currency,
    amount_minor,
    CAST(:to_date AS timestamptz),
    CAST(:now AS timestamptz)
  FROM with_owner
  WHERE
    kind = 'PAYEE'
    OR (kind = 'RESERVE' AND hold_id = (CAST(:hold_ids AS bigint[]))[1])
    OR buffer.notifies_of(hold_id, kind, owner)
  ORDER BY hold_id
)

SELECT hold_id FROM moved
ORDER BY hold_id
