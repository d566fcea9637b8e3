"""Backjobs: a client requests that the work is redone, which freezes the job's holds until a decision.

What is not listed here is private to this folder.
"""

from buffer_pipeline.backjob.approve import approve_backjob
from buffer_pipeline.backjob.decide import reject_backjob, withdraw_backjob
from buffer_pipeline.backjob.lookup import Backjob
from buffer_pipeline.backjob.request import request_backjob

__all__ = ["Backjob", "approve_backjob", "reject_backjob", "request_backjob", "withdraw_backjob"]
