"""Verification of the sealed history, and the ids of all transactions."""

from typing import Final

from sqlalchemy import Engine, text

from buffer_pipeline.audit.seals import Anchor, Verification, verify
from buffer_pipeline.database import snapshot

LINES: Final = 11


def verified(engine: Engine, *anchors: Anchor | None) -> Verification:
    """Return the result of verifying."""
    with snapshot(engine) as connection:
        return verify(connection, anchors=[anchor for anchor in anchors if anchor is not None])


def ids(engine: Engine) -> list[int]:
    """Return the ids of all transactions."""
    with engine.connect() as connection:
        return list(connection.scalars(text("SELECT transaction_id FROM buffer.transaction ORDER BY 1")))
