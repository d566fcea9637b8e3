"""An owner can be frozen: every hold that waits for the owner, and each new one, until the freeze is closed."""

from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

_OWNER_FREEZES = """
CREATE TABLE buffer.owner_freeze (
  owner_freeze_id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT owner_freeze_pkey PRIMARY KEY,
  owner text NOT NULL,
  kind text NOT NULL,
  reference text CONSTRAINT owner_freeze_reference_key UNIQUE,
  opened_by text NOT NULL,
  reason text NOT NULL,
  opened_at timestamptz NOT NULL,
  holds_frozen bigint NOT NULL,
  closing_reference text CONSTRAINT owner_freeze_closing_reference_key UNIQUE,
  closed_by text,
  closing_reason text,
  closed_at timestamptz,
  holds_resumed bigint,
  CONSTRAINT owner_freeze_owner_length CHECK (length(owner) BETWEEN 1 AND 200),
  CONSTRAINT owner_freeze_kind_is_known CHECK (kind IN ('ADMIN', 'RISK')),
  CONSTRAINT owner_freeze_reference_length CHECK (length(reference) BETWEEN 1 AND 200),
  CONSTRAINT owner_freeze_closing_reference_only_of_closed
    CHECK (closing_reference IS NULL OR closed_at IS NOT NULL),
  CONSTRAINT owner_freeze_closing_reference_length CHECK (length(closing_reference) BETWEEN 1 AND 200),
  CONSTRAINT owner_freeze_closed_whole_or_not_at_all CHECK (
    (closed_at IS NULL) = (closed_by IS NULL) AND (closed_at IS NULL) = (closing_reason IS NULL)
    AND (closed_at IS NULL) = (holds_resumed IS NULL)
  ),
  CONSTRAINT owner_freeze_closed_after_opening CHECK (opened_at <= closed_at),
  CONSTRAINT owner_freeze_says_who_and_why
    CHECK (opened_by <> '' AND reason <> '' AND closed_by <> '' AND closing_reason <> ''),
  CONSTRAINT owner_freeze_counts_not_negative CHECK (holds_frozen >= 0 AND holds_resumed >= 0)
);
CREATE UNIQUE INDEX owner_freeze_one_open_per_owner ON buffer.owner_freeze (owner) WHERE closed_at IS NULL;
CREATE TRIGGER owner_freeze_closed_once BEFORE UPDATE ON buffer.owner_freeze
FOR EACH ROW WHEN (old.closed_at IS NOT NULL) EXECUTE FUNCTION buffer.refuse_rewriting();
CREATE TRIGGER owner_freeze_is_kept BEFORE DELETE OR TRUNCATE ON buffer.owner_freeze
FOR EACH STATEMENT EXECUTE FUNCTION buffer.refuse_rewriting();
ALTER TABLE buffer.owner_freeze ENABLE ROW LEVEL SECURITY;
CREATE POLICY everybody_reads ON buffer.owner_freeze FOR SELECT USING (true);
CREATE POLICY platform_adds ON buffer.owner_freeze FOR INSERT TO buffer_platform
WITH CHECK (opened_at <= clock_timestamp() + interval '1 day');
CREATE POLICY platform_closes ON buffer.owner_freeze FOR UPDATE TO buffer_platform
USING (true) WITH CHECK (closed_at IS NULL OR closed_at <= clock_timestamp() + interval '1 day');
REVOKE ALL ON buffer.owner_freeze FROM PUBLIC;
REVOKE UPDATE, DELETE, TRUNCATE ON buffer.owner_freeze FROM CURRENT_USER;
GRANT UPDATE (closing_reference, closed_by, closing_reason, closed_at, holds_resumed)
ON buffer.owner_freeze TO CURRENT_USER, buffer_platform;
GRANT SELECT, INSERT (owner, kind, reference, opened_by, reason, opened_at, holds_frozen)
ON buffer.owner_freeze TO buffer_platform;
GRANT SELECT ON buffer.owner_freeze TO buffer_releaser, buffer_reader;
"""

# The row of an owner is locked while a wallet of the owner is made, and while the owner is frozen or unfrozen. It has
# no row for an owner whose wallets are all older than this table and who was never frozen.
_OWNERS = """
CREATE TABLE buffer.owner (
  owner text NOT NULL CONSTRAINT owner_pkey PRIMARY KEY
    CONSTRAINT owner_name_length CHECK (length(owner) BETWEEN 1 AND 200),
  owner_freeze_id bigint
    CONSTRAINT owner_open_freeze_fkey REFERENCES buffer.owner_freeze (owner_freeze_id)
);
CREATE TRIGGER owner_is_kept BEFORE DELETE OR TRUNCATE ON buffer.owner
FOR EACH STATEMENT EXECUTE FUNCTION buffer.refuse_rewriting();
REVOKE ALL ON buffer.owner FROM PUBLIC;
REVOKE UPDATE, DELETE, TRUNCATE ON buffer.owner FROM CURRENT_USER;
GRANT UPDATE (owner_freeze_id) ON buffer.owner TO CURRENT_USER, buffer_platform;
GRANT SELECT, INSERT (owner) ON buffer.owner TO buffer_platform;
GRANT SELECT ON buffer.owner TO buffer_releaser, buffer_reader;
ALTER TABLE buffer.wallet
  ADD owner_freeze_id bigint CONSTRAINT wallet_owner_freeze_fkey REFERENCES buffer.owner_freeze (owner_freeze_id);
GRANT UPDATE (owner_freeze_id) ON buffer.wallet TO CURRENT_USER;
GRANT INSERT (owner_freeze_id), UPDATE (owner_freeze_id) ON buffer.wallet TO buffer_platform;
"""

# Of a table with many holds of other owners only the owner's are read, and the first of each release hour: the index of
# what is due begins with the hour. STABLE, so that it sees what the statement that calls it sees.
_WAITING_HOLDS = """
CREATE FUNCTION buffer.waiting_holds(of_owner text) RETURNS SETOF bigint LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET random_page_cost = 1.1 SET enable_seqscan = off SET enable_bitmapscan = off
AS $$
DECLARE
  wallet_ids bigint[] := ARRAY(SELECT wallet.wallet_id FROM buffer.wallet WHERE wallet.owner = of_owner);
  hour timestamptz := (
    SELECT min(waiting.release_hour) FROM buffer.unsettled_hold AS waiting WHERE waiting.state = 'BUFFERED'
  );
BEGIN
  RETURN QUERY
  SELECT frozen.hold_id FROM buffer.unsettled_hold AS frozen
  WHERE frozen.state = 'FROZEN' AND frozen.payee_wallet_id = ANY (wallet_ids);
  WHILE hour IS NOT NULL LOOP
    RETURN QUERY
    -- Wallet by wallet: PostgreSQL 15 would read a whole hour for an array of wallets.
    SELECT waiting.hold_id FROM unnest(wallet_ids) AS of_owner_wallet (wallet_id)
    CROSS JOIN LATERAL (
      SELECT of_hour.hold_id FROM buffer.unsettled_hold AS of_hour
      WHERE of_hour.state = 'BUFFERED' AND of_hour.release_hour = hour
        AND of_hour.payee_wallet_id = of_owner_wallet.wallet_id
      ORDER BY of_hour.release_hour, of_hour.payee_wallet_id, of_hour.hold_id
      OFFSET 0
    ) AS waiting;
    hour := (
      SELECT min(waiting.release_hour) FROM buffer.unsettled_hold AS waiting
      WHERE waiting.state = 'BUFFERED' AND waiting.release_hour > hour
    );
  END LOOP;
END
$$;
REVOKE ALL ON FUNCTION buffer.waiting_holds(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION buffer.waiting_holds(text) TO buffer_platform;
"""

_HOLD_FREEZES = """
ALTER TABLE buffer.hold_freeze
  ADD owner_freeze_id bigint
    CONSTRAINT hold_freeze_owner_freeze_fkey REFERENCES buffer.owner_freeze (owner_freeze_id),
  ADD CONSTRAINT hold_freeze_of_an_owner_is_not_of_a_backjob
    CHECK (owner_freeze_id IS NULL OR kind <> 'BACKJOB'),
  ADD CONSTRAINT hold_freeze_of_an_owner_has_no_reference
    CHECK (owner_freeze_id IS NULL OR (reference IS NULL AND closing_reference IS NULL));
CREATE UNIQUE INDEX hold_freeze_owner_freeze_hold_key ON buffer.hold_freeze (owner_freeze_id, hold_id)
WHERE owner_freeze_id IS NOT NULL;
GRANT INSERT (owner_freeze_id) ON buffer.hold_freeze TO buffer_platform;
"""

# As in 0013, and a freeze that belongs to an owner's is of a hold of that owner, of the same kind, while that is open.
_STRAY_FREEZES = """
CREATE OR REPLACE FUNCTION buffer.refuse_stray_freezes() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET random_page_cost = 1.1 SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
DECLARE
  stray bigint;
BEGIN
  SELECT min(inserted.freeze_id) INTO stray
  FROM inserted
  WHERE (
    SELECT unsettled_hold.state FROM buffer.unsettled_hold
    WHERE unsettled_hold.hold_id = inserted.hold_id
  ) IS DISTINCT FROM 'FROZEN'
  OR (inserted.backjob_id IS NOT NULL AND (
    SELECT hold.hold_id FROM buffer.hold
    WHERE hold.hold_id = inserted.hold_id AND hold.job = (
      SELECT backjob.job FROM buffer.backjob
      WHERE backjob.backjob_id = inserted.backjob_id AND backjob.state = 'OPEN'
    )
  ) IS NULL){of_an_owner};
  IF stray IS NOT NULL THEN
    RAISE EXCEPTION {message}, stray
      USING ERRCODE = 'foreign_key_violation', CONSTRAINT = 'hold_freeze_is_of_a_frozen_hold';
  END IF;
  RETURN NULL;
END
$$;
"""

_OF_AN_OWNER = """
  OR (inserted.owner_freeze_id IS NOT NULL AND (
    SELECT owner_freeze.owner_freeze_id FROM buffer.owner_freeze
    WHERE owner_freeze.owner_freeze_id = inserted.owner_freeze_id
      AND owner_freeze.closed_at IS NULL
      AND owner_freeze.kind = inserted.kind
      AND owner_freeze.owner = (
        SELECT wallet.owner FROM buffer.wallet
        WHERE wallet.wallet_id = (
          SELECT waiting.payee_wallet_id FROM buffer.unsettled_hold AS waiting
          WHERE waiting.hold_id = inserted.hold_id
        )
      )
  ) IS NULL)"""
_MESSAGE = (
    "'freeze %: its hold is not FROZEN, or its backjob is not an open one of the hold''s job,"
    " or its owner''s freeze is not an open one of the hold''s payee'"
)
_OLDER_MESSAGE = "'freeze %: its hold is not FROZEN, or its backjob is not an open one of the hold''s job'"


def upgrade() -> None:
    op.execute(_OWNER_FREEZES)
    op.execute(_OWNERS)
    op.execute(_WAITING_HOLDS)
    op.execute(_HOLD_FREEZES)
    op.execute(_STRAY_FREEZES.format(of_an_owner=_OF_AN_OWNER, message=_MESSAGE))


def downgrade() -> None:
    # The holds of a frozen owner stay frozen, each by a freeze of its own.
    op.execute(_STRAY_FREEZES.format(of_an_owner="", message=_OLDER_MESSAGE))
    op.execute("DROP FUNCTION buffer.waiting_holds(text)")
    # A privilege on a column outlives the column.
    op.execute(
        "REVOKE INSERT (owner_freeze_id) ON buffer.hold_freeze FROM buffer_platform;"
        " REVOKE INSERT (owner_freeze_id), UPDATE (owner_freeze_id) ON buffer.wallet FROM buffer_platform"
    )
    op.execute("ALTER TABLE buffer.hold_freeze DROP COLUMN owner_freeze_id")
    op.execute("ALTER TABLE buffer.wallet DROP COLUMN owner_freeze_id")
    op.execute("DROP TABLE buffer.owner, buffer.owner_freeze")
