"""Deliveries of notifications, what reaches an owner where, and the inbox of the platform's app."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # What the log channel had delivered, the only one there was, counts as dispatched at that time; the
    # index on what was not delivered follows the column.
    op.alter_column("notification", "delivered_at", new_column_name="dispatched_at", schema="buffer")
    op.execute("ALTER INDEX buffer.notification_waiting_idx RENAME TO notification_undispatched_idx")
    op.create_table(
        "delivery",
        sa.Column("delivery_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("notification_id", sa.BigInteger(), nullable=False),
        sa.Column("endpoint", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), server_default=sa.text("'WAITING'"), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("next_attempt_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("first_attempt_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("lease", sa.Uuid(), nullable=True),
        sa.Column("leased_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("settled_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("delivery_id"),
        sa.UniqueConstraint("notification_id", "endpoint", name="delivery_notification_endpoint_key"),
        sa.CheckConstraint("length(endpoint) BETWEEN 1 AND 63", name="delivery_endpoint_length"),
        sa.CheckConstraint("length(owner) BETWEEN 1 AND 200", name="delivery_owner_length"),
        sa.CheckConstraint("length(reason) BETWEEN 1 AND 1000", name="delivery_reason_length"),
        sa.CheckConstraint("state IN ('WAITING', 'DELIVERED', 'DEAD')", name="delivery_state_is_known"),
        sa.CheckConstraint("attempts >= 0", name="delivery_attempts_not_negative"),
        sa.CheckConstraint(
            "(attempts = 0) = (first_attempt_at IS NULL)", name="delivery_first_attempt_iff_attempted"
        ),
        sa.CheckConstraint(
            "state = 'WAITING' OR attempts > 0", name="delivery_settled_only_after_an_attempt"
        ),
        sa.CheckConstraint(
            "(state = 'WAITING') = (settled_at IS NULL)", name="delivery_settled_at_iff_not_waiting"
        ),
        sa.CheckConstraint(
            "(attempts > 0 AND state <> 'DELIVERED') = (reason IS NOT NULL)",
            name="delivery_reason_iff_failed",
        ),
        sa.CheckConstraint("(lease IS NULL) = (leased_until IS NULL)", name="delivery_lease_has_an_end"),
        sa.CheckConstraint("state = 'WAITING' OR lease IS NULL", name="delivery_leased_only_while_waiting"),
        schema="buffer",
        postgresql_with={"fillfactor": "70"},
    )
    op.create_index(
        "delivery_waiting_idx",
        "delivery",
        ["endpoint", "owner", "delivery_id"],
        schema="buffer",
        postgresql_where=sa.text("state = 'WAITING'"),
    )
    op.create_index(
        "delivery_dead_idx",
        "delivery",
        ["settled_at", "delivery_id"],
        schema="buffer",
        postgresql_where=sa.text("state = 'DEAD'"),
    )
    op.create_index("delivery_owner_idx", "delivery", ["owner", "delivery_id"], schema="buffer")
    op.create_table(
        "endpoint_pause",
        sa.Column("endpoint", sa.Text(), nullable=False),
        sa.Column("open_until", sa.DateTime(timezone=True), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("endpoint"),
        sa.CheckConstraint("length(endpoint) BETWEEN 1 AND 63", name="endpoint_pause_endpoint_length"),
        sa.CheckConstraint("length(reason) BETWEEN 1 AND 1000", name="endpoint_pause_reason_length"),
        schema="buffer",
    )
    op.create_table(
        "contact",
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("locale", sa.Text(), nullable=True),
        sa.Column("time_zone", sa.Text(), nullable=True),
        sa.Column("email", sa.Text(), nullable=True),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("owner"),
        sa.CheckConstraint("length(owner) BETWEEN 1 AND 200", name="contact_owner_length"),
        sa.CheckConstraint("length(locale) BETWEEN 1 AND 35", name="contact_locale_length"),
        sa.CheckConstraint("length(time_zone) BETWEEN 1 AND 64", name="contact_time_zone_length"),
        sa.CheckConstraint(
            "length(email) BETWEEN 3 AND 254 AND position('@' IN email) > 0",
            name="contact_email_is_an_address",
        ),
        schema="buffer",
    )
    op.create_table(
        "inbox_message",
        sa.Column("notification_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("hold_id", sa.BigInteger(), nullable=True),
        sa.Column("backjob_id", sa.BigInteger(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("read_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("notification_id"),
        schema="buffer",
    )
    op.create_index(
        "inbox_message_owner_idx",
        "inbox_message",
        ["owner", sa.text("notification_id DESC")],
        schema="buffer",
    )
    op.create_index(
        "inbox_message_unread_idx",
        "inbox_message",
        ["owner", sa.text("notification_id DESC")],
        schema="buffer",
        postgresql_where=sa.text("read_at IS NULL"),
    )


def downgrade() -> None:
    op.drop_table("inbox_message", schema="buffer")
    op.drop_table("contact", schema="buffer")
    op.drop_table("endpoint_pause", schema="buffer")
    op.drop_table("delivery", schema="buffer")
    op.execute("ALTER INDEX buffer.notification_undispatched_idx RENAME TO notification_waiting_idx")
    op.alter_column("notification", "dispatched_at", new_column_name="delivered_at", schema="buffer")
