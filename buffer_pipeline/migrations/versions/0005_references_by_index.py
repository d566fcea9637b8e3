"""A transaction's references are looked up by index, however many rows the tables had when it was planned."""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

# A trigger's plan is kept as long as its session. One that is made while the books are small would read
# all of `hold` for each statement from then on, and an import into empty books grow slower as it goes.
_SETTINGS = ("enable_seqscan", "enable_hashjoin", "enable_mergejoin")


def upgrade() -> None:
    for name in _SETTINGS:
        op.execute(f"ALTER FUNCTION buffer.refuse_stray_transactions() SET {name} = off")


def downgrade() -> None:
    for name in _SETTINGS:
        op.execute(f"ALTER FUNCTION buffer.refuse_stray_transactions() RESET {name}")
