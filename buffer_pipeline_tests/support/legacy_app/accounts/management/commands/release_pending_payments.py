"""The replaced hourly command. It works row by row, and pays twice if two runs overlap."""

from typing import Any

from django.core.management.base import BaseCommand
from django.utils import timezone

from accounts.models import Job, JobDispute, Transaction


class Command(BaseCommand):
    """Release what is due and not disputed."""

    def handle(self, **_options: Any) -> None:
        now = timezone.now()
        waiting = Job.objects.filter(
            paymentReleaseDate__lte=now, paymentReleasedToWorker=False, paymentHeldReason="BUFFER_PERIOD"
        )
        for job in waiting:
            if not JobDispute.objects.filter(jobID=job).exclude(status__in=["RESOLVED", "CLOSED"]).exists():
                self.release(job)

    def release(self, job: Job) -> None:
        rows = Transaction.objects.filter(
            relatedJobPosting=job, transactionType="PENDING_EARNING", status="PENDING"
        )
        for row in rows:
            wallet = row.walletID
            wallet.balance += row.amount
            wallet.pendingEarnings = max(0, wallet.pendingEarnings - row.amount)
            wallet.save()
            row.transactionType, row.status = "EARNING", "COMPLETED"
            row.balanceAfter, row.completedAt = wallet.balance, timezone.now()
            row.description = f"Payment released for job: {job.title}"
            row.save()
        job.paymentReleasedToWorker, job.paymentHeldReason = True, "RELEASED"
        job.paymentReleasedAt = timezone.now()
        job.save()
