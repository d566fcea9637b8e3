"""The functions that the statement of an owner and the explanation of a hold read with, as of revision 0026.

To plan their statements takes longer than to run them. A function in PL/pgSQL keeps its plans for the
session, and answers in one round trip. Each runs with the privileges of whoever calls it.
"""

from typing import Final

# The keys are collected first: those of incoming transactions one generation of the index after the other,
# until enough are found (docs/decisions/0019), then those of outgoing ones. A transaction is of one of the
# owner's wallets, since there is one in each currency. Each LATERAL subquery looks up one row, or reads the
# lines of one wallet, by an index; its ORDER BY keeps it a subquery.
_STATEMENT_LINES: Final = """
CREATE FUNCTION buffer.statement_lines(
  of_owner text, of_currency text, newest boolean, after_key bigint, passed_from bigint, passed_to bigint,
  row_limit bigint
) RETURNS TABLE (
  transaction_id bigint,
  type text,
  amount_minor bigint,
  currency text,
  places smallint,
  change_minor bigint,
  pending_change_minor bigint,
  base_minor bigint,
  pending_base_minor bigint,
  hold_id bigint,
  kind text,
  backjob_id bigint,
  debt_id bigint,
  payout_id bigint,
  reference text,
  job text,
  title text,
  recorded_at timestamptz
)
LANGUAGE plpgsql STABLE ROWS 20
SET search_path = pg_catalog, pg_temp SET random_page_cost = 1.1 SET enable_seqscan = off
SET enable_hashjoin = off SET enable_mergejoin = off SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
  wallet_ids bigint[] := ARRAY(
    SELECT wallet.wallet_id FROM buffer.wallet
    WHERE wallet.owner = of_owner AND (of_currency IS NULL OR wallet.currency = of_currency)
  );
  last_id bigint := (SELECT max(transaction.transaction_id) FROM buffer.transaction);
  generation bigint := CASE WHEN newest THEN least(after_key, last_id + 1) ELSE after_key END >> 17;
  keys bigint[] := '{}';
  -- Of the wallets, in their order: what the lines before the page did.
  changes_minor bigint[];
  pending_changes_minor bigint[];
BEGIN
  WHILE cardinality(keys) < row_limit AND generation BETWEEN 0 AND last_id >> 17 LOOP
    IF newest THEN
      keys := keys || ARRAY(
        SELECT line.transaction_id FROM unnest(wallet_ids) AS owned (wallet_id)
        CROSS JOIN LATERAL (
          SELECT transaction.transaction_id FROM buffer.transaction
          WHERE transaction.transaction_id >> 17 = generation AND transaction.to_wallet_id = owned.wallet_id
            AND transaction.transaction_id < after_key
          ORDER BY transaction.transaction_id DESC LIMIT row_limit
        ) AS line
        ORDER BY line.transaction_id DESC LIMIT row_limit - cardinality(keys)
      );
      generation := generation - 1;
    ELSE
      keys := keys || ARRAY(
        SELECT line.transaction_id FROM unnest(wallet_ids) AS owned (wallet_id)
        CROSS JOIN LATERAL (
          SELECT transaction.transaction_id FROM buffer.transaction
          WHERE transaction.transaction_id >> 17 = generation AND transaction.to_wallet_id = owned.wallet_id
            AND transaction.transaction_id > after_key
          ORDER BY transaction.transaction_id LIMIT row_limit
        ) AS line
        ORDER BY line.transaction_id LIMIT row_limit - cardinality(keys)
      );
      generation := generation + 1;
    END IF;
  END LOOP;
  IF newest THEN
    keys := keys || ARRAY(
      SELECT line.transaction_id FROM unnest(wallet_ids) AS owned (wallet_id)
      CROSS JOIN LATERAL (
        SELECT transaction.transaction_id FROM buffer.transaction
        WHERE transaction.from_wallet_id = owned.wallet_id
          AND transaction.from_wallet_id IS DISTINCT FROM transaction.to_wallet_id
          AND transaction.transaction_id < after_key
        ORDER BY transaction.transaction_id DESC LIMIT row_limit
      ) AS line
    );
  ELSE
    keys := keys || ARRAY(
      SELECT line.transaction_id FROM unnest(wallet_ids) AS owned (wallet_id)
      CROSS JOIN LATERAL (
        SELECT transaction.transaction_id FROM buffer.transaction
        WHERE transaction.from_wallet_id = owned.wallet_id
          AND transaction.from_wallet_id IS DISTINCT FROM transaction.to_wallet_id
          AND transaction.transaction_id > after_key
        ORDER BY transaction.transaction_id LIMIT row_limit
      ) AS line
    );
  END IF;
  IF passed_from <= passed_to THEN
    SELECT array_agg(passed.change_minor ORDER BY owned.place),
      array_agg(passed.pending_change_minor ORDER BY owned.place)
    INTO changes_minor, pending_changes_minor
    FROM unnest(wallet_ids) WITH ORDINALITY AS owned (wallet_id, place)
    CROSS JOIN LATERAL (
      SELECT
        CAST(sum(CASE
          WHEN line.to_wallet_id = owned.wallet_id AND line.to_account = 'BALANCE' THEN line.amount_minor
          WHEN line.from_wallet_id = owned.wallet_id AND line.from_account = 'BALANCE' THEN -line.amount_minor
        END) AS bigint) AS change_minor,
        CAST(sum(CASE
          WHEN line.to_wallet_id = owned.wallet_id AND line.to_account = 'PENDING_EARNINGS'
            THEN line.amount_minor
          WHEN line.from_wallet_id = owned.wallet_id AND line.from_account = 'PENDING_EARNINGS'
            THEN -line.amount_minor
        END) AS bigint) AS pending_change_minor
      FROM (
        SELECT incoming.*
        FROM generate_series(passed_from >> 17, least(passed_to, last_id) >> 17) AS passed (generation)
        CROSS JOIN LATERAL (
          SELECT transaction.from_account, transaction.from_wallet_id, transaction.to_account,
            transaction.to_wallet_id, transaction.amount_minor
          FROM buffer.transaction
          WHERE transaction.transaction_id >> 17 = passed.generation
            AND transaction.to_wallet_id = owned.wallet_id
            AND transaction.transaction_id BETWEEN passed_from AND passed_to
          ORDER BY transaction.transaction_id
        ) AS incoming
        UNION ALL
        SELECT outgoing.*
        FROM (
          SELECT transaction.from_account, transaction.from_wallet_id, transaction.to_account,
            transaction.to_wallet_id, transaction.amount_minor
          FROM buffer.transaction
          WHERE transaction.from_wallet_id = owned.wallet_id
            AND transaction.from_wallet_id IS DISTINCT FROM transaction.to_wallet_id
            AND transaction.transaction_id BETWEEN passed_from AND passed_to
          ORDER BY transaction.transaction_id
        ) AS outgoing
      ) AS line
    ) AS passed;
  END IF;
  RETURN QUERY
  SELECT
    line.transaction_id, line.type, line.amount_minor, line.currency, currency.places,
    CASE
      WHEN line.to_wallet_id = owned.wallet_id AND line.to_account = 'BALANCE' THEN line.amount_minor
      WHEN line.from_wallet_id = owned.wallet_id AND line.from_account = 'BALANCE' THEN -line.amount_minor
      ELSE 0
    END,
    CASE
      WHEN line.to_wallet_id = owned.wallet_id AND line.to_account = 'PENDING_EARNINGS' THEN line.amount_minor
      WHEN line.from_wallet_id = owned.wallet_id AND line.from_account = 'PENDING_EARNINGS'
        THEN -line.amount_minor
      ELSE 0
    END,
    CASE WHEN newest THEN owned.balance_minor - passed.change_minor ELSE passed.change_minor END,
    CASE WHEN newest THEN owned.pending_earnings_minor - passed.pending_change_minor
      ELSE passed.pending_change_minor
    END,
    line.hold_id, held.kind, line.backjob_id, line.debt_id, line.payout_id, line.reference, held.job,
    held.title, line.recorded_at
  FROM (
    SELECT found.key FROM unnest(keys) AS found (key)
    ORDER BY CASE WHEN newest THEN -found.key ELSE found.key END LIMIT row_limit
  ) AS chosen
  CROSS JOIN LATERAL (
    SELECT transaction.* FROM buffer.transaction
    WHERE transaction.transaction_id = chosen.key
    ORDER BY transaction.transaction_id LIMIT 1
  ) AS line
  CROSS JOIN LATERAL (
    SELECT wallet.wallet_id, wallet.balance_minor, wallet.pending_earnings_minor FROM buffer.wallet
    WHERE wallet.wallet_id = CASE
      WHEN line.to_wallet_id = any(wallet_ids) THEN line.to_wallet_id ELSE line.from_wallet_id
    END
    ORDER BY wallet.wallet_id LIMIT 1
  ) AS owned
  INNER JOIN buffer.currency ON currency.currency = line.currency
  CROSS JOIN LATERAL (
    SELECT
      coalesce(changes_minor[array_position(wallet_ids, owned.wallet_id)], 0) AS change_minor,
      coalesce(pending_changes_minor[array_position(wallet_ids, owned.wallet_id)], 0) AS pending_change_minor
  ) AS passed
  LEFT JOIN LATERAL (
    SELECT hold.kind, hold.job, hold.title FROM buffer.hold
    WHERE hold.hold_id = line.hold_id
    ORDER BY hold.hold_id LIMIT 1
  ) AS held ON TRUE;
END
$$;
REVOKE ALL ON FUNCTION buffer.statement_lines FROM PUBLIC;
GRANT EXECUTE ON FUNCTION buffer.statement_lines
TO buffer_platform, buffer_releaser, buffer_reader, buffer_payouts;
"""

# All facts are of one snapshot. Two partial indexes cover a hold's transactions: one the EARNINGs, one the
# others. The OR lets the planner use both.
_FACTS_OF_HOLD: Final = """
CREATE FUNCTION buffer.facts_of_hold(of_hold_id bigint, of_reference text) RETURNS TABLE (
  hold_id bigint,
  reference text,
  job text,
  title text,
  kind text,
  earning_id bigint,
  earning_minor bigint,
  payee text,
  payer text,
  amount_minor bigint,
  refunded_minor bigint,
  released_minor bigint,
  currency text,
  places smallint,
  state text,
  held_at timestamptz,
  original_release_date timestamptz,
  release_date timestamptz,
  settled_at timestamptz,
  metadata text,
  rule text,
  rule_version bigint,
  rule_days bigint,
  rule_min_days bigint,
  rule_cooldown_hours bigint,
  rule_max_backjobs bigint,
  debt_minor bigint,
  is_share_frozen boolean,
  is_of_job boolean,
  open_backjob_id bigint,
  backjobs_rejected bigint,
  payees_release_date timestamptz,
  fact text,
  since timestamptz,
  by text,
  reason text,
  payee_text text,
  fact_minor bigint,
  recovered_minor bigint,
  backjob_id bigint,
  freeze_id bigint,
  owner_freeze_id bigint,
  from_date timestamptz,
  to_date timestamptz
)
LANGUAGE plpgsql STABLE ROWS 20
SET search_path = pg_catalog, pg_temp SET random_page_cost = 1.1 SET enable_seqscan = off
SET enable_hashjoin = off SET enable_mergejoin = off SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
  named_id bigint := coalesce(of_hold_id, (
    SELECT hold.hold_id FROM buffer.hold WHERE hold.reference = of_reference AND hold.earning_id IS NULL
  ));
  waiting record;
BEGIN
  SELECT
    unsettled_hold.state,
    hold_rule.days AS rule_days,
    hold_rule.min_days AS rule_min_days,
    hold_rule.cooldown_hours AS rule_cooldown_hours,
    hold_rule.max_backjobs AS rule_max_backjobs,
    payee.debt_minor,
    unsettled_hold.state = 'FROZEN' OR EXISTS (
      SELECT FROM buffer.hold AS share
      INNER JOIN buffer.unsettled_hold AS other ON other.hold_id = share.hold_id
      WHERE share.earning_id = named_id AND share.kind <> 'RESERVE' AND other.state = 'FROZEN'
    ) AS is_share_frozen,
    job.payer = payer.owner AS is_of_job,
    job.open_backjob_id,
    (
      SELECT count(*) FROM buffer.backjob WHERE backjob.job = hold.job AND backjob.state = 'REJECTED'
    ) AS backjobs_rejected,
    (
      SELECT max(other.release_date)
      FROM buffer.hold AS share
      INNER JOIN buffer.unsettled_hold AS other ON other.hold_id = share.hold_id
      WHERE share.kind = 'PAYEE' AND (
        share.hold_id = coalesce(hold.earning_id, hold.hold_id)
        OR share.earning_id = coalesce(hold.earning_id, hold.hold_id)
      )
    ) AS payees_release_date
  INTO waiting
  FROM buffer.unsettled_hold
  INNER JOIN buffer.hold ON hold.hold_id = unsettled_hold.hold_id
  INNER JOIN buffer.wallet AS payee ON payee.wallet_id = hold.payee_wallet_id
  INNER JOIN buffer.wallet AS payer ON payer.wallet_id = hold.payer_wallet_id
  INNER JOIN buffer.job ON job.job = hold.job
  LEFT JOIN buffer.hold_rule ON hold_rule.rule_id = hold.rule_id
  WHERE unsettled_hold.hold_id = named_id;
  RETURN QUERY
  SELECT
    hold.*, waiting.rule_days, waiting.rule_min_days, waiting.rule_cooldown_hours, waiting.rule_max_backjobs,
    waiting.debt_minor, waiting.is_share_frozen, waiting.is_of_job, waiting.open_backjob_id,
    waiting.backjobs_rejected, waiting.payees_release_date,
    told.fact, told.since, told.by, told.reason, told.payee_text, told.fact_minor, told.recovered_minor,
    told.backjob_id, told.freeze_id, told.owner_freeze_id, told.from_date, told.to_date
  FROM buffer.read_holds(ARRAY[named_id], '{}') AS hold
  LEFT JOIN (
    SELECT
      1 AS part,
      hold_freeze.freeze_id AS position,
      hold_freeze.kind AS fact,
      coalesce(owner_freeze.opened_at, hold_freeze.opened_at) AS since,
      coalesce(owner_freeze.opened_by, backjob.requested_by, hold_freeze.opened_by) AS by,
      coalesce(owner_freeze.reason, hold_freeze.reason) AS reason,
      coalesce(hold_freeze.payee_text, owner_freeze.payee_text) AS payee_text,
      CAST(NULL AS bigint) AS fact_minor,
      CAST(NULL AS bigint) AS recovered_minor,
      hold_freeze.backjob_id,
      -- Of an earning's freeze, the first one is to be closed.
      coalesce(hold_freeze.earning_freeze_id, hold_freeze.freeze_id) AS freeze_id,
      hold_freeze.owner_freeze_id,
      CAST(NULL AS timestamptz) AS from_date,
      CAST(NULL AS timestamptz) AS to_date
    FROM buffer.hold_freeze
    LEFT JOIN buffer.backjob ON backjob.backjob_id = hold_freeze.backjob_id
    LEFT JOIN buffer.owner_freeze ON owner_freeze.owner_freeze_id = hold_freeze.owner_freeze_id
    WHERE waiting.state = 'FROZEN' AND hold_freeze.hold_id = named_id AND hold_freeze.closed_at IS NULL
    UNION ALL
    SELECT
      2, audit_line.audit_id, audit_line.verb, audit_line.at, audit_line.by, audit_line.reason, NULL, NULL,
      NULL, NULL, NULL, NULL, audit_line.from_date, audit_line.to_date
    FROM buffer.audit_line
    WHERE audit_line.hold_id = named_id AND audit_line.verb = 'RESCHEDULE'
    UNION ALL
    SELECT
      3, line.transaction_id, line.type, line.recorded_at,
      CASE
        WHEN line.backjob_id IS NOT NULL THEN backjob.decided_by
        WHEN batch.kind <> 'DUE' THEN batch.source
      END,
      coalesce(backjob.decision_reason, batch.reason), NULL, line.amount_minor,
      (
        SELECT CAST(sum(recovery.amount_minor) AS bigint) FROM buffer.transaction AS recovery
        WHERE line.type IN ('EARNING', 'EARNING_PART')
          AND recovery.from_wallet_id = line.to_wallet_id
          AND recovery.from_wallet_id IS DISTINCT FROM recovery.to_wallet_id
          AND recovery.transaction_id > line.transaction_id
          AND recovery.type = 'RECOVERY' AND recovery.batch_id = line.batch_id
      ),
      line.backjob_id, NULL, NULL, NULL, NULL
    FROM buffer.transaction AS line
    LEFT JOIN buffer.batch ON batch.batch_id = line.batch_id
    LEFT JOIN buffer.backjob ON backjob.backjob_id = line.backjob_id
    WHERE line.hold_id = named_id AND (line.type = 'EARNING' OR line.type <> 'EARNING')
      AND line.type IN ('EARNING', 'EARNING_PART', 'REFUND', 'CLAWBACK')
  ) AS told ON TRUE
  ORDER BY told.part, told.position;
END
$$;
REVOKE ALL ON FUNCTION buffer.facts_of_hold FROM PUBLIC;
GRANT EXECUTE ON FUNCTION buffer.facts_of_hold
TO buffer_platform, buffer_releaser, buffer_reader, buffer_payouts;
-- An explanation says who has moved a release date.
GRANT SELECT (audit_id, at, by, verb, hold_id, reason, from_date, to_date) ON buffer.audit_line
TO buffer_payouts;
"""

READ_FUNCTIONS_DROPPED: Final = (
    "REVOKE SELECT (audit_id, at, by, verb, hold_id, reason, from_date, to_date) ON buffer.audit_line"
    " FROM buffer_payouts",
    "DROP FUNCTION buffer.statement_lines, buffer.facts_of_hold",
)

READ_FUNCTIONS: Final = (_STATEMENT_LINES, _FACTS_OF_HOLD)
