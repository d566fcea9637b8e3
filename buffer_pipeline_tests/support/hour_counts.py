"""Releases, and the rows of a frame of counts."""

from datetime import datetime
from typing import Any

import pandas as pd
from sqlalchemy import Connection

from buffer_pipeline.release import release_matured


def rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return a frame's rows without the zeros, with None for NaN."""
    return [
        {
            str(name): None if pd.isna(value) else value
            for name, value in record.items()
            if not (isinstance(value, int) and value == 0)
        }
        for record in frame.to_dict("records")
    ]


def release_due(connection: Connection, *, now: datetime) -> None:
    """Release all holds due at `now`."""
    release_matured(connection, now=now, due_by=now, batch_limit=1000, source="test")
