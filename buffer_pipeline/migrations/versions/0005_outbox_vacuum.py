"""Notifications are vacuumed when a fiftieth of them has been dispatched since, not a fifth."""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE buffer.notification SET (autovacuum_vacuum_scale_factor = 0.02)")


def downgrade() -> None:
    op.execute("ALTER TABLE buffer.notification RESET (autovacuum_vacuum_scale_factor)")
