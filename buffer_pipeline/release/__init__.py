"""Releases: holds go to their payees once they are due, or early if the payer or an admin wishes.

What is not listed here is private to this folder.
"""

from buffer_pipeline.release.batch import (
    ReleaseBatch,
    ReleasePosition,
    ReleaseRange,
    Shard,
)
from buffer_pipeline.release.early import release_early
from buffer_pipeline.release.matured import (
    boundaries,
    came_in_due,
    newest_hold,
    part_wallets,
    release_matured,
    release_range,
)

__all__ = [
    "ReleaseBatch",
    "ReleasePosition",
    "ReleaseRange",
    "Shard",
    "boundaries",
    "came_in_due",
    "newest_hold",
    "part_wallets",
    "release_early",
    "release_matured",
    "release_range",
]
