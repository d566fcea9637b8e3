-- How many holds are FROZEN without an open freeze, and the first :shown of them. No verb leaves such a hold.
-- One row; the ids are NULL if there is none.
WITH
alone AS MATERIALIZED (
  SELECT hold_id
  FROM buffer.unsettled_hold AS frozen
  WHERE
    state = 'FROZEN'
    AND NOT EXISTS (
      SELECT FROM buffer.hold_freeze AS open_freeze
      WHERE open_freeze.hold_id = frozen.hold_id AND open_freeze.closed_at IS NULL
    )
),

shown AS (
  SELECT hold_id
  FROM alone
  ORDER BY hold_id
  LIMIT CAST(:shown AS bigint)
)

SELECT
  (SELECT count(*) FROM alone) AS holds,
  (SELECT array_agg(hold_id ORDER BY hold_id) FROM shown) AS hold_ids
