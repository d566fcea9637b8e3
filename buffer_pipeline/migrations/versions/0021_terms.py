"""A freeze and a refund of an earning with shares are one call on several holds."""

from alembic import op

from buffer_pipeline.migrations.stray_transactions import replace_function

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

_FREEZES = """
ALTER TABLE buffer.hold_freeze
  ADD earning_id bigint
    CONSTRAINT hold_freeze_earning_fkey REFERENCES buffer.hold (hold_id),
  ADD earning_freeze_id bigint
    CONSTRAINT hold_freeze_earning_freeze_fkey REFERENCES buffer.hold_freeze (freeze_id),
  ADD CONSTRAINT hold_freeze_of_an_earning_is_of_nothing_else
    CHECK (earning_id IS NULL OR (kind <> 'BACKJOB' AND owner_freeze_id IS NULL)),
  ADD CONSTRAINT hold_freeze_of_a_share_follows_the_first CHECK (
    earning_freeze_id IS NULL
    OR (earning_freeze_id < freeze_id AND earning_id IS NOT NULL AND reference IS NULL)
  );
CREATE UNIQUE INDEX hold_freeze_earning_freeze_hold_key ON buffer.hold_freeze (earning_freeze_id, hold_id)
WHERE earning_freeze_id IS NOT NULL;
GRANT INSERT (earning_id, earning_freeze_id) ON buffer.hold_freeze TO buffer_platform;
"""

# As in 0017, and a freeze of an earning is of one of its shares, and follows an open one of the same kind.
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
  ) IS NULL)
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
  ) IS NULL){of_an_earning};
  IF stray IS NOT NULL THEN
    RAISE EXCEPTION {message}, stray
      USING ERRCODE = 'foreign_key_violation', CONSTRAINT = 'hold_freeze_is_of_a_frozen_hold';
  END IF;
  RETURN NULL;
END
$$;
"""

_OF_AN_EARNING = """
  OR (inserted.earning_id IS NOT NULL AND (
    SELECT share.hold_id FROM buffer.hold AS share
    WHERE share.hold_id = inserted.hold_id
      AND coalesce(share.earning_id, share.hold_id) = inserted.earning_id
  ) IS NULL)
  OR (inserted.earning_freeze_id IS NOT NULL AND (
    SELECT first.freeze_id FROM buffer.hold_freeze AS first
    WHERE first.freeze_id = inserted.earning_freeze_id
      AND first.closed_at IS NULL
      AND first.earning_freeze_id IS NULL
      AND first.kind = inserted.kind
      AND first.earning_id = inserted.earning_id
  ) IS NULL)"""
_OLDER_MESSAGE = (
    "'freeze %: its hold is not FROZEN, or its backjob is not an open one of the hold''s job,"
    " or its owner''s freeze is not an open one of the hold''s payee'"
)
_MESSAGE = _OLDER_MESSAGE[:-1] + ", or its earning''s freeze is not an open one of the hold''s earning'"

# The first transaction of a refund of several shares has its reference. The constraint is only relaxed, but is checked
# on all transactions: some seconds for ten million, in which nobody can write.
_REFUNDS = """
ALTER TABLE buffer.batch
  ADD earning_id bigint CONSTRAINT batch_earning_fkey REFERENCES buffer.hold (hold_id),
  ADD left_minor bigint,
  ADD CONSTRAINT batch_earning_only_of_refund CHECK (earning_id IS NULL OR kind = 'REFUND'),
  ADD CONSTRAINT batch_left_iff_of_an_earning CHECK ((earning_id IS NOT NULL) = (left_minor IS NOT NULL)),
  ADD CONSTRAINT batch_left_not_negative CHECK (left_minor >= 0);
GRANT INSERT (earning_id, left_minor) ON buffer.batch TO buffer_platform;
ALTER TABLE buffer.transaction
  DROP CONSTRAINT transaction_reference_iff_named_by_caller,
  ADD CONSTRAINT transaction_reference_iff_named_by_caller CHECK (
    (reference IS NOT NULL) = (type IN ('DEPOSIT', 'WITHDRAWAL', 'OPENING_BALANCE'))
    OR (type = 'REFUND' AND backjob_id IS NULL)
  );
"""


def upgrade() -> None:
    op.execute(_FREEZES)
    op.execute(_STRAY_FREEZES.format(of_an_earning=_OF_AN_EARNING, message=_MESSAGE))
    op.execute(_REFUNDS)
    replace_function(refunds_of_earnings=True, parts=False)


def downgrade() -> None:
    # The shares of a frozen earning stay frozen, each by a freeze of its own. Refuses where one refund took from
    # several shares: only one of its transactions has a reference.
    replace_function(refunds_of_earnings=False, parts=False)
    op.execute(_STRAY_FREEZES.format(of_an_earning="", message=_OLDER_MESSAGE))
    # A privilege on a column outlives the column.
    op.execute(
        "ALTER TABLE buffer.transaction"
        " DROP CONSTRAINT transaction_reference_iff_named_by_caller,"
        " ADD CONSTRAINT transaction_reference_iff_named_by_caller CHECK ("
        " (reference IS NOT NULL) = (type IN ('DEPOSIT', 'WITHDRAWAL', 'OPENING_BALANCE')"
        " OR (type = 'REFUND' AND backjob_id IS NULL)));"
        " REVOKE INSERT (earning_id, left_minor) ON buffer.batch FROM buffer_platform;"
        " ALTER TABLE buffer.batch DROP COLUMN earning_id, DROP COLUMN left_minor;"
        " REVOKE INSERT (earning_id, earning_freeze_id) ON buffer.hold_freeze FROM buffer_platform;"
        " ALTER TABLE buffer.hold_freeze DROP COLUMN earning_id, DROP COLUMN earning_freeze_id"
    )
