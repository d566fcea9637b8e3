"""The platform's own table, and the books' two that it shows."""

from decimal import Decimal

from django.conf import settings
from django.db import models


class Job(models.Model):
    """A piece of work that a client pays a worker for."""

    class Status(models.TextChoices):
        """What the platform knows of it; what becomes of the money is the books' to say."""

        AGREED = "AGREED"
        APPROVED = "APPROVED"

    title = models.CharField(max_length=200)
    price = models.DecimalField(max_digits=12, decimal_places=2)
    client = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="jobs_given")
    worker = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="jobs_taken")
    status = models.CharField(max_length=10, choices=Status.choices, default=Status.AGREED)


class Wallet(models.Model):
    """`buffer.wallet`, to read: only the buffer's verbs write it."""

    wallet_id = models.BigIntegerField(primary_key=True)
    owner = models.TextField()
    currency = models.CharField(max_length=3)
    balance_minor = models.BigIntegerField(default=0)
    pending_earnings_minor = models.BigIntegerField(default=0)

    class Meta:
        managed = False
        # Django quotes the whole name, so the dot between schema and table needs quotes too.
        db_table = 'buffer"."wallet'

    @property
    def balance(self) -> Decimal:
        """Theirs to use, in pesos."""
        return Decimal(self.balance_minor).scaleb(-2)

    @property
    def pending_earnings(self) -> Decimal:
        """In the buffer, in pesos."""
        return Decimal(self.pending_earnings_minor).scaleb(-2)


class Hold(models.Model):
    """`buffer.hold_status`, to read: the present state of each payment."""

    hold_id = models.BigIntegerField(primary_key=True)
    job = models.TextField()
    state = models.TextField()
    release_date = models.DateTimeField()

    class Meta:
        managed = False
        db_table = 'buffer"."hold_status'
