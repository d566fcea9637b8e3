"""Sort the rows of the Django app's export: what can be imported and what is inconsistent. Pure."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from buffer_pipeline.errors import InvalidInput
from buffer_pipeline.inputs import parse_time, require_reason, require_text
from buffer_pipeline.intake import Earning
from buffer_pipeline.legacy.files import Index, Row, figure, is_waiting, read_files
from buffer_pipeline.money import format_amount
from buffer_pipeline.shares import Share, ShareKind

_OPEN: Final = ("OPEN", "IN_NEGOTIATION", "UNDER_REVIEW")
_CLOSED: Final = ("RESOLVED", "CLOSED")
# As Django's export writes them, and as PostgreSQL's COPY does.
_TRUE: Final = ("true", "t")
_FALSE: Final = ("false", "f")
_ID_LENGTH_MAX: Final = 150
"""Short enough for a reference that contains the id after a prefix."""


@dataclass(frozen=True, kw_only=True)
class Quarantined:
    """A row that was not imported. `row` is its file and id, such as "accounts_wallet 12"."""

    row: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class WaitingPayment:
    """A row that was still in the legacy buffer, and the earning that it becomes."""

    row: str
    earning: Earning
    admin_hold: bool


@dataclass(frozen=True, kw_only=True)
class OpenDispute:
    """A backjob request that the legacy app had not decided; at most one per job."""

    row: str
    dispute_id: str
    job: str
    requested_by: str
    reason: str
    requested_at: datetime


@dataclass(frozen=True, kw_only=True)
class WalletBalance:
    """A wallet whose balance and pending earnings agree with its statement. The balance may be 0."""

    row: str
    wallet_id: str
    owner: str
    balance_minor: int


@dataclass(frozen=True, kw_only=True)
class LegacyExport:
    """The consistent rows of an export, and the quarantined ones. `rows` are all row names, file by file."""

    payments: tuple[WaitingPayment, ...]
    disputes: tuple[OpenDispute, ...]
    balances: tuple[WalletBalance, ...]
    quarantined: tuple[Quarantined, ...]
    rows: tuple[str, ...]


def read_export(directory: Path, *, currency: str, places: int) -> LegacyExport:
    """Read the five CSV files of an export and sort their rows.

    Amounts are in `currency`, which has `places`. A row that cannot be used as it is is quarantined, with a
    reason. Lengths, characters and amounts are checked by the verbs that store them.

    Raises:
        InvalidInput: a file is missing, not UTF-8, not CSV, or has no such column; the message names
            the file.
    """
    return _Export(currency, places, read_files(directory)).sort_rows()


class _Export:
    """The rows of the files, with indexes. A check that fails raises InvalidInput with the reason."""

    def __init__(self, currency: str, places: int, files: dict[str, list[Row]]) -> None:
        self.currency = currency
        self.places = places
        self.files = files
        transactions = files["accounts_transaction"]
        self.waiting = [row for row in transactions if is_waiting(row)]
        completed = [row for row in transactions if row["status"] == "COMPLETED"]
        # A cancelled row never pays, so its reference may be used again.
        not_cancelled = [row for row in transactions if row["status"] != "CANCELLED"]
        self.accounts = Index(files["accounts_accounts"], "accountID")
        self.wallets = Index(files["accounts_wallet"], "walletID")
        self.wallets_of_account = Index(files["accounts_wallet"], "accountFK_id")
        self.jobs = Index(files["jobs"], "jobID")
        self.waiting_of_wallet = Index(self.waiting, "walletID_id")
        self.completed_of_wallet = Index(completed, "walletID_id")
        self.by_reference = Index(not_cancelled, "referenceNumber")
        self.undecided_of_job = Index(
            [row for row in files["job_disputes"] if row["status"] not in _CLOSED], "jobID_id"
        )

    def sort_rows(self) -> LegacyExport:
        quarantined: list[Quarantined] = []
        balances: list[WalletBalance] = []
        payments: list[WaitingPayment] = []
        disputes: list[OpenDispute] = []

        def quarantine(row: Row, reason: object) -> None:
            quarantined.append(Quarantined(row=row.name, reason=str(reason)))

        for row in self.files["accounts_wallet"]:
            try:
                balances.append(self._balance(row))
            except InvalidInput as reason:
                quarantine(row, reason)
        for row in self.waiting:
            try:
                payments.append(self._payment(row))
            except InvalidInput as reason:
                quarantine(row, reason)
        for row in self.files["job_disputes"]:
            if row["status"] in _CLOSED:
                continue
            try:
                disputes.append(self._dispute(row))
            except InvalidInput as reason:
                quarantine(row, reason)
        return LegacyExport(
            payments=tuple(payments),
            disputes=tuple(disputes),
            balances=tuple(balances),
            quarantined=tuple(quarantined),
            rows=tuple(
                row.name
                for row in (*self.files["accounts_wallet"], *self.waiting, *self.files["job_disputes"])
            ),
        )

    def _payment(self, row: Row) -> WaitingPayment:
        reference = require_text("reference", row["referenceNumber"])
        if not row["relatedJobPosting_id"]:
            raise InvalidInput("has no job")
        also_on = [other.name for other in self.by_reference.all(reference) if other is not row]
        if also_on:
            raise InvalidInput(f"duplicate reference {reference!r}, also on {', '.join(also_on)}")
        wallet = self.wallets.only(row["walletID_id"], name=f"wallet {row['walletID_id']}")
        payee = wallet["accountFK_id"]
        self.accounts.only(payee, name=f"account {payee} of wallet {row['walletID_id']}")
        job = self.jobs.only(row["relatedJobPosting_id"], name=f"job {row['relatedJobPosting_id']}")
        payer = self._payer(job)
        self._require_waiting(job)
        return WaitingPayment(
            row=row.name,
            earning=Earning(
                reference=reference,
                job=job["jobID"],
                payee=payee,
                payer=payer,
                amount=row["amount"],
                currency=self.currency,
                # A title is only shown, so unusual spaces in it are removed instead of refused.
                title=" ".join(job["title"].split()),
                held_at=parse_time("createdAt", row["createdAt"]),
                release_date=parse_time("paymentReleaseDate", job["paymentReleaseDate"]),
                # No rule divides it: the replaced system has promised all of it to the payee.
                shares=(Share(kind=ShareKind.PAYEE),),
            ),
            admin_hold=job["paymentHeldReason"] == "ADMIN_HOLD",
        )

    def _payer(self, job: Row) -> str:
        client = job["clientAccountID"]
        self.accounts.only(client, name=f"client {client!r} of job {job['jobID']}")
        return client

    def _require_waiting(self, job: Row) -> None:
        name, held, released = (
            f"job {job['jobID']}",
            job["paymentHeldReason"],
            job["paymentReleasedToWorker"].lower(),
        )
        if released in _TRUE or held == "RELEASED":
            raise InvalidInput(
                f"{name} is released already: paymentReleasedToWorker {job['paymentReleasedToWorker']},"
                f" paymentHeldReason {held}"
            )
        if released not in _FALSE:
            raise InvalidInput(f"{name}: paymentReleasedToWorker {released!r} is neither True nor False")
        if not job["paymentReleaseDate"]:
            raise InvalidInput(f"{name} has no release date")
        if held not in {"BUFFER_PERIOD", "BACKJOB_PENDING", "ADMIN_HOLD"}:
            raise InvalidInput(f"{name}: paymentHeldReason {held!r} is not known")
        disputes = self.undecided_of_job.all(job["jobID"])
        if disputes:
            # A payment that the legacy app froze must not be imported without its freeze.
            try:
                self._dispute(disputes[0])
            except InvalidInput as reason:
                raise InvalidInput(f"{disputes[0].name} of its job is inconsistent: {reason}") from None
        elif held == "BACKJOB_PENDING":
            raise InvalidInput(f"{name} is BACKJOB_PENDING without an open dispute")

    def _dispute(self, row: Row) -> OpenDispute:
        if row["status"] not in _OPEN:
            raise InvalidInput(f"status {row['status']!r} is not known")
        job = self.jobs.only(row["jobID_id"], name=f"job {row['jobID_id']}")
        first = self.undecided_of_job.all(row["jobID_id"])[0]
        if first is not row:
            raise InvalidInput(f"second open dispute of job {job['jobID']}, after {first.name}")
        return OpenDispute(
            row=row.name,
            dispute_id=require_text("disputeID", row["disputeID"], length_max=_ID_LENGTH_MAX),
            job=require_text("job", job["jobID"]),
            requested_by=self._payer(job),
            reason=require_reason(row["reason"].strip()),
            requested_at=parse_time("openedDate", row["openedDate"]),
        )

    def _balance(self, row: Row) -> WalletBalance:
        wallet_id = require_text("walletID", row["walletID"], length_max=_ID_LENGTH_MAX)
        owner = require_text("accountFK_id", row["accountFK_id"])
        self.wallets.only(wallet_id, name=f"wallet {wallet_id}")
        self.accounts.only(owner, name=f"account {owner}")
        if len(self.wallets_of_account.all(owner)) > 1:
            raise InvalidInput(f"account {owner} has {len(self.wallets_of_account.all(owner))} wallets")
        wrong = [
            reason for reason in (self._wrong_pending(row), self._wrong_balance(row)) if reason is not None
        ]
        if wrong:
            raise InvalidInput("; ".join(wrong))
        balance_minor = figure("balance", row["balance"], self.currency, self.places)
        return WalletBalance(row=row.name, wallet_id=wallet_id, owner=owner, balance_minor=balance_minor)

    def _wrong_pending(self, wallet: Row) -> str | None:
        stated = figure("pendingEarnings", wallet["pendingEarnings"], self.currency, self.places)
        rows = self.waiting_of_wallet.all(wallet["walletID"])
        waiting = sum(
            figure(f"amount of {row.name}", row["amount"], self.currency, self.places) for row in rows
        )
        if stated == waiting:
            return None
        return (
            f"pendingEarnings {format_amount(stated, self.places)} differs from its waiting rows,"
            f" {format_amount(waiting, self.places)}"
        )

    def _wrong_balance(self, wallet: Row) -> str | None:
        balance = figure("balance", wallet["balance"], self.currency, self.places)
        if balance < 0:
            return f"balance {wallet['balance']} is negative"
        rows = self.completed_of_wallet.all(wallet["walletID"])
        if not rows:
            return None
        last = max(rows, key=_completed)
        after = figure(f"balanceAfter of {last.name}", last["balanceAfter"], self.currency, self.places)
        if balance == after:
            return None
        return (
            f"balance {format_amount(balance, self.places)} differs from the last balanceAfter,"
            f" {format_amount(after, self.places)} of {last.name}"
        )


def _completed(row: Row) -> tuple[datetime, int]:
    """Return the sort key of completed rows: the time, then the id, as in the legacy app."""
    completed_at = parse_time(f"completedAt of {row.name}", row["completedAt"])
    try:
        return completed_at, int(row["transactionID"])
    except ValueError:
        raise InvalidInput(f"transactionID {row['transactionID']!r}: is not a whole number") from None
