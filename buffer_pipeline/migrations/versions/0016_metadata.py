"""A hold has metadata: a flat JSON object of the platform's own, which can be searched by an index."""

from alembic import op

from buffer_pipeline.migrations.hold_status import extend_hold_status, shorten_hold_status

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

# The verbs check each key and value. These CHECKs keep what is written without them readable: its size is that
# of the largest metadata whose every character is escaped.
_COLUMN = """
ALTER TABLE buffer.hold
  ADD metadata jsonb,
  ADD CONSTRAINT hold_metadata_is_an_object
    CHECK (jsonb_typeof(metadata) = 'object' AND metadata <> '{}'::jsonb),
  ADD CONSTRAINT hold_metadata_is_flat CHECK (NOT jsonb_path_exists(
    metadata, 'strict $.* ? (@.type() == "object" || @.type() == "array")'::jsonpath, '{}'::jsonb, TRUE
  )),
  ADD CONSTRAINT hold_metadata_is_small CHECK (length(metadata::text) <= 65536);
CREATE INDEX hold_metadata_idx ON buffer.hold USING gin (metadata jsonb_path_ops) WHERE metadata IS NOT NULL;
GRANT INSERT (metadata) ON buffer.hold TO buffer_platform;
"""


def upgrade() -> None:
    op.execute(_COLUMN)
    extend_hold_status("metadata")


def downgrade() -> None:
    # The metadata is lost.
    shorten_hold_status()
    # A privilege on a column outlives the column.
    op.execute("REVOKE INSERT (metadata) ON buffer.hold FROM buffer_platform")
    op.execute("ALTER TABLE buffer.hold DROP COLUMN metadata")
