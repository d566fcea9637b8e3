-- Who did what to owners and rules: owners' freezes, versions of rules, retirements, and which rule an owner
-- has. The newest first, at most :row_limit of those that match every filter which is not NULL: :owner,
-- :acted_by and :since. A version of a rule and its retirement have no owner.
-- Each part reads at most :row_limit rows by an index on the time, or on the person and the time, or all rows of
-- :owner by an index on it. Rules are few, and are read whole.
WITH
fact AS (
  (
    SELECT
      opened_at AS at,
      opened_by AS by,
      'FREEZE_OWNER' AS verb,
      owner,
      reason,
      kind,
      owner_freeze_id,
      holds_frozen AS holds,
      reference,
      CAST(NULL AS text) AS rule,
      CAST(NULL AS bigint) AS version,
      owner_freeze_id AS id
    FROM buffer.owner_freeze
    WHERE
      (CAST(:owner AS text) IS NULL OR owner = CAST(:owner AS text))
      AND (CAST(:acted_by AS text) IS NULL OR opened_by = CAST(:acted_by AS text))
      AND (CAST(:since AS timestamptz) IS NULL OR opened_at >= CAST(:since AS timestamptz))
    ORDER BY opened_at DESC, owner_freeze_id DESC
    LIMIT CAST(:row_limit AS bigint)
  )
  UNION ALL
  (
    SELECT
      closed_at,
      closed_by,
      'UNFREEZE_OWNER',
      owner,
      closing_reason,
      kind,
      owner_freeze_id,
      holds_resumed,
      closing_reference,
      NULL,
      NULL,
      owner_freeze_id
    FROM buffer.owner_freeze
    WHERE
      closed_at IS NOT NULL
      AND (CAST(:owner AS text) IS NULL OR owner = CAST(:owner AS text))
      AND (CAST(:acted_by AS text) IS NULL OR closed_by = CAST(:acted_by AS text))
      AND (CAST(:since AS timestamptz) IS NULL OR closed_at >= CAST(:since AS timestamptz))
    ORDER BY closed_at DESC, owner_freeze_id DESC
    LIMIT CAST(:row_limit AS bigint)
  )
  UNION ALL
  (
    SELECT
      added_at,
      added_by,
      'ADD_RULE',
      NULL,
      reason,
      NULL,
      NULL,
      NULL,
      NULL,
      name,
      version,
      rule_id
    FROM buffer.hold_rule
    WHERE
      CAST(:owner AS text) IS NULL
      AND (CAST(:acted_by AS text) IS NULL OR added_by = CAST(:acted_by AS text))
      AND (CAST(:since AS timestamptz) IS NULL OR added_at >= CAST(:since AS timestamptz))
    ORDER BY added_at DESC, rule_id DESC
    LIMIT CAST(:row_limit AS bigint)
  )
  UNION ALL
  (
    SELECT
      retired_at,
      retired_by,
      'RETIRE_RULE',
      NULL,
      retirement_reason,
      NULL,
      NULL,
      NULL,
      NULL,
      name,
      version,
      rule_id
    FROM buffer.hold_rule
    WHERE
      CAST(:owner AS text) IS NULL
      AND retired_at IS NOT NULL
      AND (CAST(:acted_by AS text) IS NULL OR retired_by = CAST(:acted_by AS text))
      AND (CAST(:since AS timestamptz) IS NULL OR retired_at >= CAST(:since AS timestamptz))
    ORDER BY retired_at DESC, rule_id DESC
    LIMIT CAST(:row_limit AS bigint)
  )
  UNION ALL
  (
    SELECT
      assigned_at,
      assigned_by,
      CASE WHEN name IS NULL THEN 'UNASSIGN_RULE' ELSE 'ASSIGN_RULE' END,
      owner,
      reason,
      NULL,
      NULL,
      NULL,
      NULL,
      name,
      NULL,
      number
    FROM buffer.rule_assignment
    WHERE
      (CAST(:owner AS text) IS NULL OR owner = CAST(:owner AS text))
      AND (CAST(:acted_by AS text) IS NULL OR assigned_by = CAST(:acted_by AS text))
      AND (CAST(:since AS timestamptz) IS NULL OR assigned_at >= CAST(:since AS timestamptz))
    ORDER BY assigned_at DESC, number DESC, owner ASC
    LIMIT CAST(:row_limit AS bigint)
  )
),

newest AS (
  SELECT *
  FROM fact
  ORDER BY at DESC, id DESC, verb DESC, owner ASC
  LIMIT CAST(:row_limit AS bigint)
)

SELECT
  newest.at,
  newest.by,
  newest.verb,
  newest.owner,
  newest.reason,
  newest.kind,
  newest.owner_freeze_id,
  newest.holds,
  newest.reference,
  CASE
    WHEN newest.verb <> 'UNASSIGN_RULE' THEN newest.rule
    -- The rule that the owner had until then.
    ELSE (
      SELECT ended.name
      FROM buffer.rule_assignment AS ended
      WHERE ended.owner = newest.owner AND ended.number = newest.id - 1
    )
  END AS rule,
  newest.version
FROM newest
ORDER BY newest.at DESC, newest.id DESC, newest.verb DESC, newest.owner ASC
