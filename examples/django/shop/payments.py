"""Where the platform calls the buffer: inside Django's transaction, on Django's connection."""

from typing import Any

from django.db import connection
from django.utils import timezone

import buffer_pipeline as buffer
from shop.models import Job

CURRENCY = "PHP"


def hold_payment(job: Job) -> buffer.AddedHold:
    """The worker has earned the job's price: it waits in the buffer."""
    return buffer.add_pending_earnings(
        _in_transaction(),
        # The idempotency key: approving twice holds the money once.
        reference=f"job-{job.pk}",
        job=str(job.pk),
        title=job.title,
        payee=str(job.worker_id),
        payer=str(job.client_id),
        amount=job.price,
        currency=CURRENCY,
        now=timezone.now(),
    )


def ask_for_backjob(job: Job, *, by: int, reason: str) -> buffer.Backjob:
    """The client is not content: the job's payment is frozen until somebody decides."""
    return buffer.request_backjob(
        _in_transaction(), job=str(job.pk), by=str(by), reason=reason, now=timezone.now()
    )


def _in_transaction() -> Any:
    """Return psycopg's connection. Inside `atomic()` it is open, and the verbs refuse it elsewhere."""
    return connection.connection
