"""Decisions are final, a releaser takes what is due and nothing else, and no wallet grows beyond a bigint."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

_CHECKS = (
    (
        "wallet",
        "wallet_fits_a_bigint",
        "balance_minor <= 9223372036854775807 - greatest(pending_earnings_minor, 0)",
    ),
    ("hold", "hold_payer_is_not_payee", "payee_wallet_id <> payer_wallet_id"),
    (
        "hold",
        "hold_dates_in_range",
        "held_at >= timestamptz '1970-01-01 00:00:00+00'"
        " AND original_release_date < timestamptz '3000-01-01 00:00:00+00'",
    ),
    ("batch", "batch_recorded_when_due", "due_by <= recorded_at"),
    ("batch", "batch_says_who_and_why", "source <> '' AND reason <> ''"),
    ("backjob", "backjob_decided_after_request", "requested_at <= decided_at"),
    (
        "backjob",
        "backjob_says_who_and_why",
        "job <> '' AND requested_by <> '' AND reason <> '' AND decided_by <> '' AND decision_reason <> ''",
    ),
    ("hold_freeze", "hold_freeze_closed_after_opening", "opened_at <= closed_at"),
    (
        "hold_freeze",
        "hold_freeze_says_who_and_why",
        "opened_by <> '' AND reason <> '' AND closed_by <> '' AND closing_reason <> ''",
    ),
)

# A decision is final. What may change of an open one, the privileges on columns say.
_DECISIONS = """
CREATE TRIGGER backjob_decided_once BEFORE UPDATE ON buffer.backjob
FOR EACH ROW WHEN (old.state <> 'OPEN') EXECUTE FUNCTION buffer.refuse_rewriting();
CREATE TRIGGER hold_freeze_closed_once BEFORE UPDATE ON buffer.hold_freeze
FOR EACH ROW WHEN (old.closed_at IS NOT NULL) EXECUTE FUNCTION buffer.refuse_rewriting();
"""

# A freeze keeps back what waits, and a backjob's freezes are of its own job. By subqueries for a value, as in
# refuse_stray_transactions: each row is looked up by index, whatever the plan is kept from.
_FREEZES = """
CREATE FUNCTION buffer.refuse_stray_freezes() RETURNS trigger
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
  ) IS NULL);
  IF stray IS NOT NULL THEN
    RAISE EXCEPTION 'freeze %: its hold is not FROZEN, or its backjob is not an open one of the hold''s job', stray
      USING ERRCODE = 'foreign_key_violation', CONSTRAINT = 'hold_freeze_is_of_a_frozen_hold';
  END IF;
  RETURN NULL;
END
$$;
REVOKE ALL ON FUNCTION buffer.refuse_stray_freezes() FROM PUBLIC;
CREATE TRIGGER hold_freeze_is_of_a_frozen_hold AFTER INSERT ON buffer.hold_freeze
REFERENCING NEW TABLE AS inserted
FOR EACH STATEMENT EXECUTE FUNCTION buffer.refuse_stray_freezes();
"""

# What a releaser may take out of the buffer is what is due by the database's clock, whatever clock it brings,
# and its batches say so. The platform releases early too, but only a batch that says so. Its decisions are not dated
# later than a day after that clock: a release date counts from them. Owners of tables are not held to any of it.
_POLICIES = """
ALTER TABLE buffer.unsettled_hold ENABLE ROW LEVEL SECURITY;
CREATE POLICY everybody_reads ON buffer.unsettled_hold FOR SELECT USING (TRUE);
CREATE POLICY platform_adds ON buffer.unsettled_hold FOR INSERT TO buffer_platform WITH CHECK (TRUE);
CREATE POLICY writers_lock_and_change ON buffer.unsettled_hold
FOR UPDATE TO buffer_platform, buffer_releaser USING (TRUE);
CREATE POLICY platform_settles ON buffer.unsettled_hold FOR DELETE TO buffer_platform USING (TRUE);
CREATE POLICY releaser_settles_what_is_due ON buffer.unsettled_hold FOR DELETE TO buffer_releaser
USING (state = 'BUFFERED' AND release_date <= clock_timestamp());

ALTER TABLE buffer.batch ENABLE ROW LEVEL SECURITY;
CREATE POLICY everybody_reads ON buffer.batch FOR SELECT USING (TRUE);
CREATE POLICY platform_adds ON buffer.batch FOR INSERT TO buffer_platform
WITH CHECK (recorded_at <= clock_timestamp() + CASE kind WHEN 'DUE' THEN interval '0' ELSE interval '1 day' END);
CREATE POLICY releaser_adds_what_is_due ON buffer.batch FOR INSERT TO buffer_releaser
WITH CHECK (kind = 'DUE' AND recorded_at <= clock_timestamp());

ALTER TABLE buffer.backjob ENABLE ROW LEVEL SECURITY;
CREATE POLICY everybody_reads ON buffer.backjob FOR SELECT USING (TRUE);
CREATE POLICY platform_adds ON buffer.backjob FOR INSERT TO buffer_platform
WITH CHECK (requested_at <= clock_timestamp() + interval '1 day');
CREATE POLICY platform_decides ON buffer.backjob FOR UPDATE TO buffer_platform USING (TRUE)
WITH CHECK (decided_at IS NULL OR decided_at <= clock_timestamp() + interval '1 day');

ALTER TABLE buffer.hold_freeze ENABLE ROW LEVEL SECURITY;
CREATE POLICY everybody_reads ON buffer.hold_freeze FOR SELECT USING (TRUE);
CREATE POLICY platform_adds ON buffer.hold_freeze FOR INSERT TO buffer_platform
WITH CHECK (opened_at <= clock_timestamp() + interval '1 day');
CREATE POLICY platform_closes ON buffer.hold_freeze FOR UPDATE TO buffer_platform USING (TRUE)
WITH CHECK (closed_at IS NULL OR closed_at <= clock_timestamp() + interval '1 day');
"""

_POLICY_NAMES = {
    "unsettled_hold": (
        "everybody_reads",
        "platform_adds",
        "writers_lock_and_change",
        "platform_settles",
        "releaser_settles_what_is_due",
    ),
    "batch": ("everybody_reads", "platform_adds", "releaser_adds_what_is_due"),
    "backjob": ("everybody_reads", "platform_adds", "platform_decides"),
    "hold_freeze": ("everybody_reads", "platform_adds", "platform_closes"),
}


def upgrade() -> None:
    for table, name, condition in _CHECKS:
        if table == "wallet":
            # A wallet changes, so no such row may be left: each release to it would fail.
            op.create_check_constraint(name, table, condition, schema="buffer")
        else:
            _add_check(table, name, condition)
    op.execute(_DECISIONS)
    op.execute(_FREEZES)
    op.execute(_POLICIES)


def downgrade() -> None:
    for table, policies in _POLICY_NAMES.items():
        for policy in policies:
            op.execute(f"DROP POLICY {policy} ON buffer.{table}")
        op.execute(f"ALTER TABLE buffer.{table} DISABLE ROW LEVEL SECURITY")
    op.execute("DROP TRIGGER hold_freeze_is_of_a_frozen_hold ON buffer.hold_freeze")
    op.execute("DROP FUNCTION buffer.refuse_stray_freezes()")
    op.execute("DROP TRIGGER hold_freeze_closed_once ON buffer.hold_freeze")
    op.execute("DROP TRIGGER backjob_decided_once ON buffer.backjob")
    for table, name, _ in reversed(_CHECKS):
        op.drop_constraint(name, table, schema="buffer")


def _add_check(table: str, name: str, condition: str) -> None:
    """Add a CHECK, which holds for each row that is written from now on.

    Nobody may change the past, so rows that violate it stay, and leave it not validated.
    """
    op.execute(f"ALTER TABLE buffer.{table} ADD CONSTRAINT {name} CHECK ({condition}) NOT VALID")
    offenders = op.get_bind().scalar(
        sa.text(f"SELECT count(*) FROM buffer.{table} WHERE NOT ({condition})")  # noqa: S608 - ours
    )
    if not offenders:
        op.execute(f"ALTER TABLE buffer.{table} VALIDATE CONSTRAINT {name}")
