"""Frozen holds are found by an index, so that one without an open freeze is seen at every look."""

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # A freeze moves its hold between the indexes by state already, and a release touches only what is BUFFERED.
    op.execute(
        "CREATE INDEX unsettled_hold_frozen_idx ON buffer.unsettled_hold (hold_id) WHERE state = 'FROZEN'"
    )


def downgrade() -> None:
    op.execute("DROP INDEX buffer.unsettled_hold_frozen_idx")
