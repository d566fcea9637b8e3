"""A payer's holds, and those that wait for a payee, are found by an index. A freeze has a text for the payee."""

from alembic import op

from buffer_pipeline.migrations.read_functions import READ_FUNCTIONS, READ_FUNCTIONS_DROPPED

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None

# By generation, so that new entries go to few pages, however long the history is (docs/decisions/0019). The
# holds of a payee are found by their transactions, which have such an index already.
_INDEXES = """
CREATE INDEX hold_generation_payer_idx ON buffer.hold ((hold_id >> 17), payer_wallet_id, hold_id);
CREATE INDEX unsettled_hold_payee_idx ON buffer.unsettled_hold (payee_wallet_id, hold_id);
"""

# What the lists of holds return. A function, so that its plan is made once in a session: to plan the statement takes
# longer than to run it. The plan reads by index and is generic; the variables are NULL for what is not asked.
_FUNCTION = """
CREATE FUNCTION buffer.read_holds(hold_ids bigint[], filters jsonb) RETURNS TABLE (
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
  rule_version bigint
)
LANGUAGE plpgsql STABLE ROWS 20
SET search_path = pg_catalog, pg_temp SET random_page_cost = 1.1 SET enable_seqscan = off
SET enable_hashjoin = off SET enable_mergejoin = off SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
  of_job text := filters ->> 'job';
  of_kind text := filters ->> 'kind';
  of_state text := filters ->> 'state';
  of_payee text := filters ->> 'payee';
  of_payer text := filters ->> 'payer';
  held_since timestamptz := filters ->> 'held_since';
  held_before timestamptz := filters ->> 'held_before';
  due_by timestamptz := filters ->> 'due_by';
  contained jsonb := filters -> 'metadata';
BEGIN
  RETURN QUERY
  SELECT
    found.hold_id, found.reference, found.job, found.title, found.kind, found.earning_id, found.earning_minor,
    payee.owner, payer.owner, found.amount_minor, found.refunded_minor, found.released_minor, found.currency,
    currency.places, found.state, found.held_at, found.original_release_date, found.release_date,
    found.settled_at, CAST(found.metadata AS text), hold_rule.name, hold_rule.version
  FROM buffer.hold_status AS found
  INNER JOIN buffer.wallet AS payee ON payee.wallet_id = found.payee_wallet_id
  INNER JOIN buffer.wallet AS payer ON payer.wallet_id = found.payer_wallet_id
  INNER JOIN buffer.currency ON currency.currency = found.currency
  LEFT JOIN buffer.hold_rule ON hold_rule.rule_id = found.rule_id
  WHERE found.hold_id = any(hold_ids)
    AND (of_job IS NULL OR found.job = of_job)
    AND (of_kind IS NULL OR found.kind = of_kind)
    AND (of_payee IS NULL OR payee.owner = of_payee)
    AND (of_payer IS NULL OR payer.owner = of_payer)
    AND (held_since IS NULL OR found.held_at >= held_since)
    AND (held_before IS NULL OR found.held_at < held_before)
    AND (of_state IS NULL OR found.state = of_state)
    AND (due_by IS NULL OR (found.state = 'BUFFERED' AND found.release_date <= due_by))
    AND (contained IS NULL OR (
      SELECT bool_and(coalesce(found.metadata @> (listed.one -> 0) OR found.metadata @> (listed.one -> 1), FALSE))
      FROM jsonb_array_elements(contained) AS listed (one)
    ));
END
$$;
REVOKE ALL ON FUNCTION buffer.read_holds FROM PUBLIC;
GRANT EXECUTE ON FUNCTION buffer.read_holds
TO buffer_platform, buffer_releaser, buffer_reader, buffer_payouts;
-- The lists name the rule of a hold, for every role.
GRANT SELECT ON buffer.hold_rule TO buffer_payouts;
"""

# The next holds of an owner after a key: as a payer by hold, as a payee by the PENDING_EARNING of the hold, which is the
# key. One generation of the index after the other, until enough are found.
_OF_OWNER = """
CREATE FUNCTION buffer.holds_of_owner(
  of_owner text, as_payer boolean, newest boolean, after_key bigint, row_limit bigint
) RETURNS TABLE (key bigint, hold_id bigint)
LANGUAGE plpgsql STABLE ROWS 20
SET search_path = pg_catalog, pg_temp SET random_page_cost = 1.1 SET enable_seqscan = off
SET enable_bitmapscan = off SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
  wallet_ids bigint[] := ARRAY(SELECT wallet.wallet_id FROM buffer.wallet WHERE wallet.owner = of_owner);
  last_id bigint;
  start bigint := after_key;
  generation bigint;
  rows_found bigint := 0;
  rows_now bigint;
BEGIN
  IF as_payer THEN
    last_id := (SELECT max(hold.hold_id) FROM buffer.hold);
  ELSE
    last_id := (SELECT max(transaction.transaction_id) FROM buffer.transaction);
  END IF;
  IF newest THEN
    start := least(start, last_id + 1);
  END IF;
  generation := start >> 17;
  WHILE rows_found < row_limit AND generation BETWEEN 0 AND last_id >> 17 LOOP
    IF as_payer AND newest THEN
      RETURN QUERY
      SELECT line.hold_id AS key, line.hold_id FROM unnest(wallet_ids) AS owned (wallet_id)
        CROSS JOIN LATERAL (
          SELECT hold.hold_id FROM buffer.hold
          WHERE hold.hold_id >> 17 = generation AND hold.payer_wallet_id = owned.wallet_id
            AND hold.hold_id < start
          ORDER BY hold.hold_id DESC LIMIT row_limit - rows_found
        ) AS line
        ORDER BY line.hold_id DESC LIMIT row_limit - rows_found;
    ELSIF as_payer THEN
      RETURN QUERY
      SELECT line.hold_id AS key, line.hold_id FROM unnest(wallet_ids) AS owned (wallet_id)
        CROSS JOIN LATERAL (
          SELECT hold.hold_id FROM buffer.hold
          WHERE hold.hold_id >> 17 = generation AND hold.payer_wallet_id = owned.wallet_id
            AND hold.hold_id > start
          ORDER BY hold.hold_id LIMIT row_limit - rows_found
        ) AS line
        ORDER BY line.hold_id LIMIT row_limit - rows_found;
    ELSIF newest THEN
      RETURN QUERY
      SELECT line.transaction_id, line.hold_id FROM unnest(wallet_ids) AS owned (wallet_id)
        CROSS JOIN LATERAL (
          SELECT transaction.transaction_id, transaction.hold_id FROM buffer.transaction
          WHERE transaction.transaction_id >> 17 = generation AND transaction.to_wallet_id = owned.wallet_id
            AND transaction.transaction_id < start
            AND transaction.type = 'PENDING_EARNING'
          ORDER BY transaction.transaction_id DESC LIMIT row_limit - rows_found
        ) AS line
        ORDER BY line.transaction_id DESC LIMIT row_limit - rows_found;
    ELSE
      RETURN QUERY
      SELECT line.transaction_id, line.hold_id FROM unnest(wallet_ids) AS owned (wallet_id)
        CROSS JOIN LATERAL (
          SELECT transaction.transaction_id, transaction.hold_id FROM buffer.transaction
          WHERE transaction.transaction_id >> 17 = generation AND transaction.to_wallet_id = owned.wallet_id
            AND transaction.transaction_id > start
            AND transaction.type = 'PENDING_EARNING'
          ORDER BY transaction.transaction_id LIMIT row_limit - rows_found
        ) AS line
        ORDER BY line.transaction_id LIMIT row_limit - rows_found;
    END IF;
    GET DIAGNOSTICS rows_now = ROW_COUNT;
    rows_found := rows_found + rows_now;
    generation := generation + CASE WHEN newest THEN -1 ELSE 1 END;
  END LOOP;
END
$$;
REVOKE ALL ON FUNCTION buffer.holds_of_owner FROM PUBLIC;
GRANT EXECUTE ON FUNCTION buffer.holds_of_owner
TO buffer_platform, buffer_releaser, buffer_reader, buffer_payouts;
"""

# What the payee is told of a freeze: never the internal reason. A freeze that belongs to an owner's freeze has
# that one's text, and a backjob's has none.
_TEXTS = """
ALTER TABLE buffer.owner_freeze
  ADD COLUMN payee_text text,
  ADD CONSTRAINT owner_freeze_payee_text_length CHECK (length(payee_text) BETWEEN 1 AND 500),
  ADD CONSTRAINT owner_freeze_payee_text_is_one_line
    CHECK (payee_text !~ '[[:cntrl:]]' AND payee_text = btrim(payee_text));
ALTER TABLE buffer.hold_freeze
  ADD COLUMN payee_text text,
  ADD CONSTRAINT hold_freeze_payee_text_length CHECK (length(payee_text) BETWEEN 1 AND 500),
  ADD CONSTRAINT hold_freeze_payee_text_is_one_line
    CHECK (payee_text !~ '[[:cntrl:]]' AND payee_text = btrim(payee_text)),
  ADD CONSTRAINT hold_freeze_payee_text_only_of_its_own
    CHECK (payee_text IS NULL OR (kind <> 'BACKJOB' AND owner_freeze_id IS NULL));
GRANT INSERT (payee_text) ON buffer.owner_freeze TO buffer_platform;
GRANT INSERT (payee_text) ON buffer.hold_freeze TO buffer_platform;
"""


def upgrade() -> None:
    op.execute(_INDEXES)
    op.execute(_FUNCTION)
    op.execute(_OF_OWNER)
    op.execute(_TEXTS)
    for statement in READ_FUNCTIONS:
        op.execute(statement)


def downgrade() -> None:
    for statement in READ_FUNCTIONS_DROPPED:
        op.execute(statement)
    # A privilege on a column outlives the column.
    for table in ("hold_freeze", "owner_freeze"):
        op.execute(f"REVOKE INSERT (payee_text) ON buffer.{table} FROM buffer_platform")
    op.execute("ALTER TABLE buffer.hold_freeze DROP COLUMN payee_text")
    op.execute("ALTER TABLE buffer.owner_freeze DROP COLUMN payee_text")
    op.execute("REVOKE SELECT ON buffer.hold_rule FROM buffer_payouts")
    op.execute("DROP FUNCTION buffer.read_holds, buffer.holds_of_owner")
    op.execute("DROP INDEX buffer.unsettled_hold_payee_idx, buffer.hold_generation_payer_idx")
