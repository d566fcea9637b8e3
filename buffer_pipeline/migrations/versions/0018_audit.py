"""A table for who did what and why, and a notification of a release date that was moved."""

from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

_LINES = """
CREATE TABLE buffer.audit_line (
  audit_id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT audit_line_pkey PRIMARY KEY,
  at timestamptz NOT NULL,
  by text NOT NULL,
  verb text NOT NULL,
  owner text NOT NULL,
  hold_id bigint CONSTRAINT audit_line_hold_fkey REFERENCES buffer.hold (hold_id),
  transaction_id bigint CONSTRAINT audit_line_transaction_key UNIQUE,
  reference text CONSTRAINT audit_line_reference_key UNIQUE,
  reason text,
  from_date timestamptz,
  to_date timestamptz,
  detail jsonb NOT NULL DEFAULT '{}',
  CONSTRAINT audit_line_verb_is_known CHECK (verb IN ('RESCHEDULE', 'DEPOSIT', 'WITHDRAW')),
  CONSTRAINT audit_line_hold_iff_of_a_hold CHECK ((verb = 'RESCHEDULE') = (hold_id IS NOT NULL)),
  CONSTRAINT audit_line_transaction_iff_money_moves
    CHECK ((verb IN ('DEPOSIT', 'WITHDRAW')) = (transaction_id IS NOT NULL)),
  CONSTRAINT audit_line_dates_iff_rescheduled CHECK (
    (verb = 'RESCHEDULE') = (from_date IS NOT NULL) AND (from_date IS NULL) = (to_date IS NULL)
    AND from_date <> to_date
  ),
  CONSTRAINT audit_line_of_a_decision_says_why
    CHECK (reason IS NOT NULL OR verb IN ('DEPOSIT', 'WITHDRAW')),
  CONSTRAINT audit_line_says_who_and_why CHECK (by <> '' AND owner <> '' AND reason <> ''),
  CONSTRAINT audit_line_reference_length CHECK (length(reference) BETWEEN 1 AND 200),
  CONSTRAINT audit_line_detail_is_an_object CHECK (jsonb_typeof(detail) = 'object')
);
CREATE INDEX audit_line_at_idx ON buffer.audit_line (at);
CREATE INDEX audit_line_by_idx ON buffer.audit_line (by, at);
CREATE INDEX audit_line_hold_idx ON buffer.audit_line (hold_id) WHERE hold_id IS NOT NULL;
CREATE TRIGGER audit_line_is_append_only
BEFORE UPDATE OR DELETE OR TRUNCATE ON buffer.audit_line
FOR EACH STATEMENT EXECUTE FUNCTION buffer.refuse_rewriting();
REVOKE ALL ON buffer.audit_line FROM PUBLIC;
REVOKE UPDATE, DELETE, TRUNCATE ON buffer.audit_line FROM CURRENT_USER;
GRANT SELECT,
  INSERT (at, by, verb, owner, hold_id, transaction_id, reference, reason, from_date, to_date, detail)
  ON buffer.audit_line TO buffer_platform;
GRANT SELECT ON buffer.audit_line TO buffer_releaser, buffer_reader;
ALTER TABLE buffer.audit_line ENABLE ROW LEVEL SECURITY;
CREATE POLICY everybody_reads ON buffer.audit_line FOR SELECT USING (TRUE);
CREATE POLICY platform_adds ON buffer.audit_line FOR INSERT TO buffer_platform
WITH CHECK (at <= clock_timestamp() + interval '1 day');
"""

# The trail lists the newest first, of all or of one person.
_INDEXES = """
CREATE INDEX hold_freeze_opened_idx ON buffer.hold_freeze (opened_at);
CREATE INDEX hold_freeze_closed_idx ON buffer.hold_freeze (closed_at) WHERE closed_at IS NOT NULL;
CREATE INDEX hold_freeze_opened_by_idx ON buffer.hold_freeze (opened_by, opened_at);
CREATE INDEX hold_freeze_closed_by_idx ON buffer.hold_freeze (closed_by, closed_at) WHERE closed_at IS NOT NULL;
CREATE INDEX batch_decided_idx ON buffer.batch (recorded_at) WHERE kind <> 'DUE';
CREATE INDEX batch_decided_by_idx ON buffer.batch (source, recorded_at) WHERE kind <> 'DUE';
CREATE INDEX transaction_moved_idx ON buffer.transaction (recorded_at)
WHERE type IN ('DEPOSIT', 'WITHDRAWAL');
"""

_TYPES = (
    "'PAYMENT_PENDING', 'PAYMENT_RELEASED', 'PAYMENT_FROZEN', 'PAYMENT_RESUMED', {moved}'PAYMENT_REFUNDED',"
    " 'BACKJOB_RECEIVED', 'BACKJOB_REJECTED', 'BACKJOB_APPROVED'"
)


def upgrade() -> None:
    op.execute(_LINES)
    op.execute(_INDEXES)
    _know_types("'PAYMENT_RESCHEDULED', ")


def downgrade() -> None:
    # Refuses where an owner was told of a moved date: the older CHECK knows no such notification.
    _know_types("")
    for name in ("opened", "closed", "opened_by", "closed_by"):
        op.execute(f"DROP INDEX buffer.hold_freeze_{name}_idx")
    op.execute(
        "DROP INDEX buffer.batch_decided_idx, buffer.batch_decided_by_idx, buffer.transaction_moved_idx"
    )
    op.execute("DROP TABLE buffer.audit_line")


def _know_types(moved: str) -> None:
    op.execute(
        "ALTER TABLE buffer.notification DROP CONSTRAINT notification_type_is_known,"
        f" ADD CONSTRAINT notification_type_is_known CHECK (type IN ({_TYPES.format(moved=moved)}))"
    )
