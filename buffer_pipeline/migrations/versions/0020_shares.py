"""An earning can be divided into shares: holds of their own, of which the payee's is the first."""

from alembic import op

from buffer_pipeline.migrations.hold_status import extend_hold_status, shorten_hold_status

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

# The columns have constant defaults, so no row is rewritten. The unique index is built again: a million holds
# take seconds, in which nobody can add one.
_SHARES = """
ALTER TABLE buffer.hold
  ADD COLUMN kind text NOT NULL DEFAULT 'PAYEE',
  ADD COLUMN earning_id bigint,
  ADD COLUMN earning_minor bigint;
ALTER TABLE buffer.hold
  ADD CONSTRAINT hold_kind_is_known CHECK (kind IN ('PAYEE', 'FEE', 'TAX', 'RESERVE')),
  ADD CONSTRAINT hold_first_share_is_the_payees CHECK (earning_id IS NOT NULL OR kind = 'PAYEE'),
  ADD CONSTRAINT hold_share_follows_the_first CHECK (earning_id < hold_id),
  ADD CONSTRAINT hold_earning_has_shares CHECK (
    earning_minor IS NULL OR (earning_minor > amount_minor AND earning_id IS NULL)
  ),
  ADD CONSTRAINT hold_earning_fkey FOREIGN KEY (earning_id) REFERENCES buffer.hold (hold_id),
  DROP CONSTRAINT hold_reference_key;
CREATE UNIQUE INDEX hold_reference_key ON buffer.hold (reference) WHERE earning_id IS NULL;
CREATE INDEX hold_earning_idx ON buffer.hold (earning_id) WHERE earning_id IS NOT NULL;
ALTER TABLE buffer.unsettled_hold ADD COLUMN kind text NOT NULL DEFAULT 'PAYEE';
ALTER TABLE buffer.unsettled_hold
  ADD CONSTRAINT unsettled_hold_kind_is_known CHECK (kind IN ('PAYEE', 'FEE', 'TAX', 'RESERVE'));
ALTER TABLE buffer.contact ADD COLUMN notify_of_shares boolean NOT NULL DEFAULT FALSE;
GRANT INSERT (kind, earning_id, earning_minor) ON buffer.hold TO buffer_platform;
GRANT INSERT (kind) ON buffer.unsettled_hold TO buffer_platform;
GRANT INSERT (notify_of_shares), UPDATE (notify_of_shares) ON buffer.contact TO buffer_platform;
"""

# The payee is notified once for an earning: of the first share, and of the reserve when it is all that is left.
_NOTIFIES = """
CREATE FUNCTION buffer.notifies_of(hold bigint, kind text, owner text) RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
  SELECT CASE $2
    WHEN 'PAYEE' THEN TRUE
    WHEN 'RESERVE' THEN NOT EXISTS (
      SELECT FROM buffer.hold
      INNER JOIN buffer.unsettled_hold AS first ON first.hold_id = hold.earning_id
      WHERE hold.hold_id = $1
    )
    ELSE EXISTS (SELECT FROM buffer.contact WHERE contact.owner = $3 AND contact.notify_of_shares)
  END
$$;
REVOKE ALL ON FUNCTION buffer.notifies_of(bigint, text, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION buffer.notifies_of(bigint, text, text) TO buffer_platform, buffer_releaser;
"""


def upgrade() -> None:
    op.execute(_SHARES)
    op.execute(_NOTIFIES)
    extend_hold_status("metadata", "rule_id", "kind", "earning_id", "earning_minor")


def downgrade() -> None:
    # Refuses where an earning has shares: two holds would have one reference.
    shorten_hold_status("metadata", "rule_id")
    op.execute("DROP FUNCTION buffer.notifies_of(bigint, text, text)")
    op.execute(
        "REVOKE INSERT (kind, earning_id, earning_minor) ON buffer.hold FROM buffer_platform;"
        " REVOKE INSERT (kind) ON buffer.unsettled_hold FROM buffer_platform;"
        " REVOKE INSERT (notify_of_shares), UPDATE (notify_of_shares) ON buffer.contact FROM buffer_platform;"
        " ALTER TABLE buffer.contact DROP COLUMN notify_of_shares;"
        " ALTER TABLE buffer.unsettled_hold DROP COLUMN kind;"
        " DROP INDEX buffer.hold_reference_key;"
        " ALTER TABLE buffer.hold ADD CONSTRAINT hold_reference_key UNIQUE (reference);"
        " ALTER TABLE buffer.hold DROP COLUMN kind, DROP COLUMN earning_id, DROP COLUMN earning_minor"
    )
