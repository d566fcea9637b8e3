"""The Django application that the books replace, and its shipped export."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Final

LEGACY_APP: Final = Path(__file__).parent / "legacy_app"
EXPORT: Final = Path(__file__).parent / "legacy_export"

TAKEN_AT: Final = datetime(2026, 11, 18, 23, 30, tzinfo=UTC)
"""The approximate time of the shipped export."""
