"""Running sums of minor units stay integers, and free space on the pages keeps a release from pruning them."""

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

# `sum` of a bigint is numeric, which a running sum would make of each row. This one is exact as well, and an
# error where a bigint ends.
_SUM = """
CREATE AGGREGATE buffer.sum_minor(bigint) (SFUNC = pg_catalog.int8pl, STYPE = bigint, INITCOND = '0', PARALLEL = SAFE);
REVOKE ALL ON FUNCTION buffer.sum_minor(bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION buffer.sum_minor(bigint) TO buffer_platform, buffer_releaser;
"""


def upgrade() -> None:
    op.execute(_SUM)
    # Whoever reads a page with less than a tenth free tidies it first: a release did so again and again.
    op.execute("ALTER TABLE buffer.unsettled_hold SET (fillfactor = 90)")


def downgrade() -> None:
    op.execute("ALTER TABLE buffer.unsettled_hold RESET (fillfactor)")
    op.execute("DROP AGGREGATE buffer.sum_minor(bigint)")
