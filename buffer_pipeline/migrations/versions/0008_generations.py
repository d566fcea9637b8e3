"""A wallet's transactions are found by generation, and queues are vacuumed by what went through them."""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        "CREATE INDEX transaction_generation_to_wallet_idx ON buffer.transaction"
        " ((transaction_id >> 17), to_wallet_id, transaction_id)"
    )
    op.execute("DROP INDEX buffer.transaction_to_wallet_idx")
    op.execute(
        "ALTER TABLE buffer.notification SET ("
        " autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 50000, vacuum_index_cleanup = on)"
    )
    op.execute(
        "ALTER TABLE buffer.unsettled_hold SET ("
        " autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.02,"
        " vacuum_index_cleanup = on)"
    )


def downgrade() -> None:
    op.execute(
        "ALTER TABLE buffer.unsettled_hold RESET ("
        " autovacuum_vacuum_scale_factor, autovacuum_vacuum_insert_scale_factor, vacuum_index_cleanup)"
    )
    op.execute("ALTER TABLE buffer.notification RESET (autovacuum_vacuum_threshold, vacuum_index_cleanup)")
    op.execute("ALTER TABLE buffer.notification SET (autovacuum_vacuum_scale_factor = 0.02)")
    op.execute("CREATE INDEX transaction_to_wallet_idx ON buffer.transaction (to_wallet_id, transaction_id)")
    op.execute("DROP INDEX buffer.transaction_generation_to_wallet_idx")
