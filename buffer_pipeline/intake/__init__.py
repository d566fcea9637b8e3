"""Money enters the buffer: a worker's earning is held until its release date.

What is not listed here is private to this folder.
"""

from buffer_pipeline.intake.add import add_many_pending_earnings, add_pending_earnings
from buffer_pipeline.intake.earning import CheckedEarning, Earning, check_earning
from buffer_pipeline.intake.replay import AddedHold, AddedShare

__all__ = [
    "AddedHold",
    "AddedShare",
    "CheckedEarning",
    "Earning",
    "add_many_pending_earnings",
    "add_pending_earnings",
    "check_earning",
]
