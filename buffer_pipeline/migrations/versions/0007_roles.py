"""Three roles with the least that each needs, and functions that no session's search path reaches."""

from alembic import op

from buffer_pipeline.migrations.roles import require_roles

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_ROLES = ("buffer_platform", "buffer_releaser", "buffer_reader")

_FUNCTIONS = (
    "refuse_rewriting()",
    "refuse_stray_transactions()",
    "enter_hour(timestamptz)",
    "enter_hour_of_transactions()",
    "enter_hour_of_freezes()",
)

# Columns by name, so that nobody chooses an id. Whoever locks rows needs the right to update some column of them.
_GRANTS = """
GRANT USAGE ON SCHEMA buffer TO buffer_platform, buffer_releaser, buffer_reader;
GRANT SELECT ON
  buffer.alembic_version, buffer.wallet, buffer.hold, buffer.unsettled_hold, buffer.hold_status,
  buffer.transaction, buffer.batch, buffer.backjob, buffer.hold_freeze
  TO buffer_platform, buffer_releaser, buffer_reader;
GRANT SELECT ON buffer.counted_hour, buffer.hourly_release_count TO buffer_releaser, buffer_reader;
GRANT EXECUTE ON FUNCTION buffer.enter_hour(timestamptz) TO buffer_platform, buffer_releaser;

GRANT UPDATE (balance_minor, pending_earnings_minor) ON buffer.wallet TO buffer_platform, buffer_releaser;
GRANT DELETE ON buffer.unsettled_hold TO buffer_platform, buffer_releaser;
GRANT INSERT (kind, source, reason, due_by, recorded_at) ON buffer.batch TO buffer_platform, buffer_releaser;

GRANT INSERT (owner, currency) ON buffer.wallet TO buffer_platform;
GRANT INSERT (
  reference, job, title, payee_wallet_id, payer_wallet_id, currency, amount_minor, held_at,
  original_release_date
) ON buffer.hold TO buffer_platform;
GRANT INSERT (hold_id, payee_wallet_id, currency, amount_minor, release_date)
  ON buffer.unsettled_hold TO buffer_platform;
GRANT UPDATE (state, amount_minor, release_date) ON buffer.unsettled_hold TO buffer_platform;
GRANT INSERT (
  type, from_account, from_wallet_id, to_account, to_wallet_id, currency, amount_minor, balance_after_minor,
  hold_id, backjob_id, batch_id, reference, recorded_at, release_date
) ON buffer.transaction TO buffer_platform;
GRANT INSERT (reference, job, requested_by, reason, requested_at) ON buffer.backjob TO buffer_platform;
GRANT UPDATE (state, decided_by, decision_reason, decided_at, refunded_minor)
  ON buffer.backjob TO buffer_platform;
GRANT INSERT (hold_id, kind, backjob_id, opened_by, reason, opened_at) ON buffer.hold_freeze TO buffer_platform;
GRANT UPDATE (closed_by, closing_reason, closed_at) ON buffer.hold_freeze TO buffer_platform;
GRANT INSERT (type, owner, hold_id, backjob_id, currency, amount_minor, release_date, created_at)
  ON buffer.notification TO buffer_platform;
GRANT SELECT, INSERT (owner, locale, time_zone, email, updated_at),
  UPDATE (locale, time_zone, email, updated_at) ON buffer.contact TO buffer_platform;
GRANT SELECT, UPDATE (read_at) ON buffer.inbox_message TO buffer_platform;

-- To lock what waits, and no more: this column is the database's own to write.
GRANT UPDATE (release_hour) ON buffer.unsettled_hold TO buffer_releaser;
-- Neither a reference nor a backjob, so no deposit, withdrawal or refund.
GRANT INSERT (
  type, from_account, from_wallet_id, to_account, to_wallet_id, currency, amount_minor, balance_after_minor,
  hold_id, batch_id, recorded_at, release_date
) ON buffer.transaction TO buffer_releaser;
GRANT SELECT, INSERT (type, owner, hold_id, currency, amount_minor, created_at), UPDATE (dispatched_at)
  ON buffer.notification TO buffer_releaser;
GRANT SELECT, INSERT (notification_id, endpoint, owner, created_at, next_attempt_at),
  UPDATE (
    state, attempts, next_attempt_at, first_attempt_at, lease, leased_until, settled_at, reason
  ) ON buffer.delivery TO buffer_releaser;
GRANT SELECT, INSERT (endpoint, open_until, reason), UPDATE (open_until, reason), DELETE
  ON buffer.endpoint_pause TO buffer_releaser;
GRANT SELECT ON buffer.contact TO buffer_releaser;
-- It adds messages, and reads of the inbox no more than which are there.
GRANT SELECT (notification_id),
  INSERT (notification_id, owner, type, title, body, hold_id, backjob_id, created_at)
  ON buffer.inbox_message TO buffer_releaser;
GRANT INSERT (hour, counted_by, counted_at), DELETE ON buffer.counted_hour TO buffer_releaser;
GRANT INSERT ON buffer.hourly_release_count TO buffer_releaser;
GRANT SELECT, INSERT (kind, period, hold_ids, sent_at) ON buffer.alert TO buffer_releaser;
"""


def upgrade() -> None:
    # All roles of the newest revision, so that whoever may not create them is told of all at once.
    require_roles()
    op.execute("REVOKE ALL ON SCHEMA buffer FROM PUBLIC")
    op.execute("REVOKE ALL ON ALL TABLES IN SCHEMA buffer FROM PUBLIC")
    op.execute("REVOKE ALL ON ALL FUNCTIONS IN SCHEMA buffer FROM PUBLIC")
    op.execute(_GRANTS)
    for function in _FUNCTIONS:
        op.execute(f"ALTER FUNCTION buffer.{function} SET search_path = pg_catalog, pg_temp")


def downgrade() -> None:
    # The roles stay: other databases of the server may use them, and logins be members of them.
    roles = ", ".join(_ROLES)
    for function in _FUNCTIONS:
        op.execute(f"ALTER FUNCTION buffer.{function} RESET search_path")
        op.execute(f"GRANT EXECUTE ON FUNCTION buffer.{function} TO PUBLIC")
    op.execute(f"REVOKE ALL ON ALL FUNCTIONS IN SCHEMA buffer FROM {roles}")
    op.execute(f"REVOKE ALL ON ALL TABLES IN SCHEMA buffer FROM {roles}")
    op.execute(f"REVOKE ALL ON SCHEMA buffer FROM {roles}")
