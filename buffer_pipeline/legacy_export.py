"""Reads the export of the Django app and says what in it is inconsistent. Pure: files in, records out.

The columns and the figures of a consistent export are described in the README beside the one
that the tests ship (`buffer_pipeline_tests/legacy_export`).
"""

import csv
import io
import re
from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from buffer_pipeline.errors import InvalidInput
from buffer_pipeline.inputs import parse_time, require_file, require_reason, require_text
from buffer_pipeline.intake import Earning
from buffer_pipeline.money import currency_places, format_amount, parse_amount

# The columns that an import needs; the first is the row's id.
_COLUMNS: Final = {
    "accounts_accounts": ("accountID",),
    "accounts_wallet": ("walletID", "accountFK_id", "balance", "pendingEarnings"),
    "accounts_transaction": (
        "transactionID",
        "walletID_id",
        "transactionType",
        "status",
        "amount",
        "balanceAfter",
        "referenceNumber",
        "relatedJobPosting_id",
        "createdAt",
        "completedAt",
    ),
    "jobs": (
        "jobID",
        "title",
        "clientAccountID",
        "paymentReleaseDate",
        "paymentReleasedToWorker",
        "paymentHeldReason",
    ),
    "job_disputes": ("disputeID", "jobID_id", "status", "reason", "openedDate"),
}
_OPEN: Final = ("OPEN", "IN_NEGOTIATION", "UNDER_REVIEW")
_CLOSED: Final = ("RESOLVED", "CLOSED")
_ZERO: Final = re.compile(r"0+(\.0+)?")
_ID_LENGTH_MAX: Final = 150
"""Leaves room for the name that an id gets in a reference."""


@dataclass(frozen=True, kw_only=True)
class Quarantined:
    """A row that did not come over; `row` is its file and id, such as "accounts_wallet 12"."""

    row: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class WaitingPayment:
    """A row that was still in the legacy buffer, as the earning that it becomes."""

    row: str
    earning: Earning
    admin_hold: bool


@dataclass(frozen=True, kw_only=True)
class OpenDispute:
    """A backjob request that the legacy app had not decided; at most one of a job."""

    row: str
    dispute_id: str
    job: str
    requested_by: str
    reason: str
    requested_at: datetime


@dataclass(frozen=True, kw_only=True)
class WalletBalance:
    """A wallet whose two figures agree with its statement; the balance may be zero."""

    row: str
    wallet_id: str
    owner: str
    balance_minor: int


@dataclass(frozen=True, kw_only=True)
class LegacyExport:
    """What is sound in an export, and what is not. `rows` are all row names, file by file."""

    payments: tuple[WaitingPayment, ...]
    disputes: tuple[OpenDispute, ...]
    balances: tuple[WalletBalance, ...]
    quarantined: tuple[Quarantined, ...]
    rows: tuple[str, ...]


def read_export(directory: Path, *, currency: str) -> LegacyExport:
    """Read the five CSV files of an export and sort what is sound from what is not.

    A row that cannot be used as it stands is quarantined, with its reason; what a field may
    hold (lengths, characters, amounts) is left to the verbs that store it.

    Raises:
        InvalidInput: the currency is unknown, or a file is missing, not UTF-8, not CSV or
            without a column; the message names the file.
    """
    currency_places(currency)
    if not directory.is_dir():
        raise InvalidInput(f"{directory}: is not a directory")
    return _Export(currency, {name: _read(directory, name) for name in _COLUMNS}).sorted_out()


@dataclass(frozen=True)
class _Row:
    name: str
    fields: dict[str, str]

    def __getitem__(self, column: str) -> str:
        return self.fields[column]


def _read(directory: Path, name: str) -> list[_Row]:
    file = f"{name}.csv"
    require_file(directory / file)
    try:
        content = (directory / file).read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise InvalidInput(f"{file}: is missing in {directory}") from None
    except OSError as error:
        raise InvalidInput(f"{file}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{file}: is not UTF-8; the first wrong byte is byte {error.start + 1}") from None
    reader = csv.reader(io.StringIO(content, newline=""), strict=True)
    rows: list[_Row] = []
    try:
        header = next(reader, [])
        for column in _COLUMNS[name]:
            if header.count(column) != 1:
                raise InvalidInput(f"{file}: needs one column {column}, has {header.count(column)}")
        for values in reader:
            if not values:
                continue
            if len(values) != len(header):
                raise InvalidInput(
                    f"{file}: line {reader.line_num} has {len(values)} fields, the header has {len(header)}"
                )
            fields = dict(zip(header, values, strict=True))
            rows.append(_Row(f"{name} {fields[_COLUMNS[name][0]] or f'line {reader.line_num}'}", fields))
    except csv.Error as error:
        raise InvalidInput(f"{file}: line {reader.line_num}: {error}") from None
    return rows


class _Index:
    """Rows by the value of a column."""

    def __init__(self, rows: list[_Row], column: str) -> None:
        self._rows = defaultdict[str, list[_Row]](list)
        for row in rows:
            self._rows[row[column]].append(row)

    def all(self, value: str) -> list[_Row]:
        return self._rows.get(value, [])

    def only(self, value: str, *, name: str) -> _Row:
        """Return the row; one that stands twice is no answer."""
        found = self.all(value)
        if not found:
            raise InvalidInput(f"{name.rstrip()} does not exist")
        if len(found) > 1:
            raise InvalidInput(f"{name} stands on {len(found)} rows")
        return found[0]


class _Export:
    """The rows of the files and what is looked up in them. A check raises what it finds."""

    def __init__(self, currency: str, files: dict[str, list[_Row]]) -> None:
        self.currency = currency
        self.files = files
        transactions = files["accounts_transaction"]
        self.waiting = [
            row
            for row in transactions
            if (row["transactionType"], row["status"]) == ("PENDING_EARNING", "PENDING")
        ]
        completed = [row for row in transactions if row["status"] == "COMPLETED"]
        # Nothing was or will be paid under the reference of a cancelled row.
        not_cancelled = [row for row in transactions if row["status"] != "CANCELLED"]
        self.accounts = _Index(files["accounts_accounts"], "accountID")
        self.wallets = _Index(files["accounts_wallet"], "walletID")
        self.wallets_of_account = _Index(files["accounts_wallet"], "accountFK_id")
        self.jobs = _Index(files["jobs"], "jobID")
        self.waiting_of_wallet = _Index(self.waiting, "walletID_id")
        self.completed_of_wallet = _Index(completed, "walletID_id")
        self.by_reference = _Index(not_cancelled, "referenceNumber")
        self.undecided_of_job = _Index(
            [row for row in files["job_disputes"] if row["status"] not in _CLOSED], "jobID_id"
        )

    def sorted_out(self) -> LegacyExport:
        quarantined: list[Quarantined] = []
        balances: list[WalletBalance] = []
        payments: list[WaitingPayment] = []
        disputes: list[OpenDispute] = []

        def quarantine(row: _Row, reason: object) -> None:
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

    def _payment(self, row: _Row) -> WaitingPayment:
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
                # A title is only shown; spaces around it are no reason to keep money back.
                title=" ".join(job["title"].split()),
                held_at=parse_time("createdAt", row["createdAt"]),
                release_date=parse_time("paymentReleaseDate", job["paymentReleaseDate"]),
            ),
            admin_hold=job["paymentHeldReason"] == "ADMIN_HOLD",
        )

    def _payer(self, job: _Row) -> str:
        client = job["clientAccountID"]
        self.accounts.only(client, name=f"client {client!r} of job {job['jobID']}")
        return client

    def _require_waiting(self, job: _Row) -> None:
        name, held, released = (
            f"job {job['jobID']}",
            job["paymentHeldReason"],
            job["paymentReleasedToWorker"].lower(),
        )
        if released == "true" or held == "RELEASED":
            raise InvalidInput(
                f"{name} is released already: paymentReleasedToWorker {job['paymentReleasedToWorker']},"
                f" paymentHeldReason {held}"
            )
        if released != "false":
            raise InvalidInput(f"{name}: paymentReleasedToWorker {released!r} is neither True nor False")
        if not job["paymentReleaseDate"]:
            raise InvalidInput(f"{name} has no release date")
        if held not in {"BUFFER_PERIOD", "BACKJOB_PENDING", "ADMIN_HOLD"}:
            raise InvalidInput(f"{name}: paymentHeldReason {held!r} is not known")
        disputes = self.undecided_of_job.all(job["jobID"])
        if disputes:
            # What the legacy app froze must not come over free to be released.
            try:
                self._dispute(disputes[0])
            except InvalidInput as reason:
                raise InvalidInput(f"{disputes[0].name} of its job is inconsistent: {reason}") from None
        elif held == "BACKJOB_PENDING":
            raise InvalidInput(f"{name} is BACKJOB_PENDING without an open dispute")

    def _dispute(self, row: _Row) -> OpenDispute:
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

    def _balance(self, row: _Row) -> WalletBalance:
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
        balance_minor = _figure("balance", row["balance"], self.currency)
        return WalletBalance(row=row.name, wallet_id=wallet_id, owner=owner, balance_minor=balance_minor)

    def _wrong_pending(self, wallet: _Row) -> str | None:
        stated = _figure("pendingEarnings", wallet["pendingEarnings"], self.currency)
        rows = self.waiting_of_wallet.all(wallet["walletID"])
        waiting = sum(_figure(f"amount of {row.name}", row["amount"], self.currency) for row in rows)
        if stated == waiting:
            return None
        return (
            f"pendingEarnings {format_amount(stated, self.currency)} differs from its waiting rows,"
            f" {format_amount(waiting, self.currency)}"
        )

    def _wrong_balance(self, wallet: _Row) -> str | None:
        balance = _figure("balance", wallet["balance"], self.currency)
        if balance < 0:
            return f"balance {wallet['balance']} is negative"
        rows = self.completed_of_wallet.all(wallet["walletID"])
        if not rows:
            return None
        last = max(rows, key=_completed)
        after = _figure(f"balanceAfter of {last.name}", last["balanceAfter"], self.currency)
        if balance == after:
            return None
        return (
            f"balance {format_amount(balance, self.currency)} differs from the last balanceAfter,"
            f" {format_amount(after, self.currency)} of {last.name}"
        )


def _completed(row: _Row) -> tuple[datetime, int]:
    """Return when a row was completed, as the legacy app orders them."""
    completed_at = parse_time(f"completedAt of {row.name}", row["completedAt"])
    try:
        return completed_at, int(row["transactionID"])
    except ValueError:
        raise InvalidInput(f"transactionID {row['transactionID']!r}: is not a whole number") from None


def _figure(name: str, text: str, currency: str) -> int:
    """Return a figure in minor units; unlike an amount it may be zero or below."""
    unsigned = text.strip().removeprefix("-")
    if _ZERO.fullmatch(unsigned):
        unsigned_minor = 0
    else:
        try:
            unsigned_minor = parse_amount(unsigned, currency)
        except InvalidInput as refusal:
            raise InvalidInput(f"{name}: {refusal}") from None
    return -unsigned_minor if text.strip().startswith("-") else unsigned_minor
