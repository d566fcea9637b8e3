"""The five tables in an export of the application, with their column names."""

from django.db import models


class Account(models.Model):
    accountID = models.AutoField(primary_key=True)
    email = models.TextField()

    class Meta:
        db_table = "accounts_accounts"


class Wallet(models.Model):
    walletID = models.AutoField(primary_key=True)
    accountFK = models.ForeignKey(Account, models.CASCADE)
    balance = models.DecimalField(max_digits=12, decimal_places=2)
    reservedBalance = models.DecimalField(max_digits=12, decimal_places=2, default=0)
    pendingEarnings = models.DecimalField(max_digits=12, decimal_places=2)
    createdAt = models.DateTimeField(auto_now_add=True)
    updatedAt = models.DateTimeField(auto_now=True)

    class Meta:
        db_table = "accounts_wallet"


class Job(models.Model):
    jobID = models.AutoField(primary_key=True)
    title = models.TextField()
    budget = models.DecimalField(max_digits=12, decimal_places=2)
    status = models.TextField()
    clientAccountID = models.IntegerField()
    paymentReleaseDate = models.DateTimeField(null=True)
    paymentReleasedToWorker = models.BooleanField(default=False)
    paymentReleasedAt = models.DateTimeField(null=True)
    paymentHeldReason = models.TextField()
    completedAt = models.DateTimeField(null=True)

    class Meta:
        db_table = "jobs"


class Transaction(models.Model):
    transactionID = models.AutoField(primary_key=True)
    walletID = models.ForeignKey(Wallet, models.CASCADE)
    transactionType = models.TextField()
    amount = models.DecimalField(max_digits=12, decimal_places=2)
    balanceAfter = models.DecimalField(max_digits=12, decimal_places=2, null=True)
    status = models.TextField()
    description = models.TextField()
    referenceNumber = models.TextField()
    relatedJobPosting = models.ForeignKey(Job, models.CASCADE, null=True)
    createdAt = models.DateTimeField(auto_now_add=True)
    completedAt = models.DateTimeField(null=True)

    class Meta:
        db_table = "accounts_transaction"


class JobDispute(models.Model):
    disputeID = models.AutoField(primary_key=True)
    jobID = models.ForeignKey(Job, models.CASCADE)
    disputedBy = models.TextField()
    reason = models.TextField()
    description = models.TextField()
    status = models.TextField()
    jobAmount = models.DecimalField(max_digits=12, decimal_places=2)
    disputedAmount = models.DecimalField(max_digits=12, decimal_places=2)
    resolution = models.TextField(null=True)
    resolvedDate = models.DateTimeField(null=True)
    openedDate = models.DateTimeField()
    adminRejectedAt = models.DateTimeField(null=True)
    adminRejectionReason = models.TextField(null=True)

    class Meta:
        db_table = "job_disputes"
