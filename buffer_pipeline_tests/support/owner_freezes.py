"""Freezing and unfreezing PAYEE, and the open freezes of a hold."""

from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, select

from buffer_pipeline.hold import FreezeKind
from buffer_pipeline.owner_freeze import OwnerFreeze, freeze_owner, unfreeze_owner
from buffer_pipeline.tables import hold_freeze
from buffer_pipeline_tests.support.builders import (
    ADMIN,
    NOON,
    PAYEE,
)

LATER = NOON + timedelta(hours=5)


def freeze(connection: Connection, **changes: Any) -> OwnerFreeze:
    """Freeze PAYEE as an admin, with some arguments changed."""
    arguments = {"owner": PAYEE, "kind": FreezeKind.ADMIN, "by": ADMIN, "reason": "a look", "now": NOON}
    return freeze_owner(connection, **{**arguments, **changes})


def unfreeze(connection: Connection, **changes: Any) -> OwnerFreeze:
    """Unfreeze PAYEE as an admin, with some arguments changed."""
    arguments = {"owner": PAYEE, "by": ADMIN, "reason": "fine", "now": LATER}
    return unfreeze_owner(connection, **{**arguments, **changes})


def freeze_ids(connection: Connection, hold_id: int) -> list[int]:
    """Return the open freezes of a hold, oldest first."""
    found = connection.scalars(
        select(hold_freeze.c.freeze_id)
        .where(hold_freeze.c.hold_id == hold_id, hold_freeze.c.closed_at.is_(None))
        .order_by(hold_freeze.c.freeze_id)
    )
    return list(found)
