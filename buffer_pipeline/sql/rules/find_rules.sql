-- For each of :names, :payees and :currencies, at the same position, the version of the rule that applies: of the
-- named rule, else the payee's, else standard. An empty name names none. Of the versions after the last retired one,
-- it is the newest for the currency, else the newest without a currency. If there is neither, it is another one: of
-- another currency, or retired, which "out_of_use_since" says.
-- A row has its position, counted from 1: "chosen" is the name of the rule, and the other columns are empty if it has
-- no version. No row where no rule is named, if no owner has ever had one and there is no rule "standard": this is
-- decided once, not for each.
-- Reads only, by index for each. max() finds whether there is an assignment by the index, whatever the planner
-- expects.
SELECT
  asked.place,
  chosen.name AS chosen,
  chosen.is_assigned,
  CASE WHEN newest.version <= retired.version THEN retired.retired_at END AS out_of_use_since,
  newest.*
FROM unnest(CAST(:names AS text[]), CAST(:payees AS text[]), CAST(:currencies AS text[]))
WITH ORDINALITY AS asked (name, payee, currency, place)
LEFT JOIN LATERAL ( -- noqa: ST05
  SELECT rule_assignment.name
  FROM buffer.rule_assignment
  WHERE rule_assignment.owner = asked.payee AND asked.name = ''
  ORDER BY rule_assignment.number DESC
  LIMIT 1
) AS assigned ON TRUE
CROSS JOIN LATERAL ( -- noqa: ST05
  SELECT
    CASE WHEN asked.name <> '' THEN asked.name ELSE coalesce(assigned.name, 'standard') END AS name,
    assigned.name IS NOT NULL AS is_assigned
) AS chosen
LEFT JOIN LATERAL ( -- noqa: ST05
  SELECT
    hold_rule.version,
    hold_rule.retired_at
  FROM buffer.hold_rule
  WHERE hold_rule.name = chosen.name AND hold_rule.retired_at IS NOT NULL
  ORDER BY hold_rule.version DESC
  LIMIT 1
) AS retired ON TRUE
LEFT JOIN LATERAL ( -- noqa: ST05
  SELECT
    hold_rule.rule_id,
    hold_rule.name,
    hold_rule.version,
    hold_rule.currency,
    hold_rule.days,
    hold_rule.min_days,
    hold_rule.cooldown_hours,
    hold_rule.max_backjobs,
    hold_rule.fee_percent,
    hold_rule.fee_fixed_minor,
    hold_rule.fee_owner,
    hold_rule.fee_on_refund,
    hold_rule.tax_percent,
    hold_rule.tax_of,
    hold_rule.tax_owner,
    hold_rule.reserve_percent,
    hold_rule.reserve_days,
    hold_rule.recovery_percent,
    hold_rule.added_by,
    hold_rule.reason,
    hold_rule.added_at,
    hold_rule.retired_by,
    hold_rule.retirement_reason,
    hold_rule.retired_at
  FROM buffer.hold_rule
  WHERE hold_rule.name = chosen.name
  ORDER BY
    hold_rule.version > coalesce(retired.version, 0) DESC,
    CASE WHEN hold_rule.currency = asked.currency THEN 0 WHEN hold_rule.currency IS NULL THEN 1 ELSE 2 END,
    hold_rule.version DESC
  LIMIT 1
) AS newest ON TRUE
WHERE
  asked.name <> ''
  OR (SELECT max(rule_assignment.owner) FROM buffer.rule_assignment) IS NOT NULL
  OR EXISTS (
    SELECT FROM buffer.hold_rule
    WHERE hold_rule.name = 'standard'
  )
ORDER BY asked.place
