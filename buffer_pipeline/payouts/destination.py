"""Where an owner's payouts go. The account is stored once, and shown masked everywhere."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final

from sqlalchemy.exc import StatementError

from buffer_pipeline.database import AnyConnection, Row, fetch
from buffer_pipeline.errors import InvalidInput, NotFound
from buffer_pipeline.extras import need
from buffer_pipeline.hours import enter_hour
from buffer_pipeline.inputs import require_reason, require_text, require_time
from buffer_pipeline.payouts.holder_name import fault_of_holder_name

_SHOWN_OF_TOKEN_FROM: Final = 12
"""A shorter token is masked whole: its last characters would be too large a part of it."""


class PayoutMethod(StrEnum):
    """How a destination is paid: to a bank account, or by a provider that knows the token."""

    IBAN = "IBAN"
    TOKEN = "TOKEN"  # noqa: S105 - a kind of destination, not a password


@dataclass(frozen=True, kw_only=True)
class Destination:
    """A version of an owner's destination. `account` is masked, such as `DE****3000`.

    `holder_name` is personal data, so it is not in the repr.
    """

    destination_id: int
    owner: str
    version: int
    method: PayoutMethod
    account: str
    holder_name: str | None = field(repr=False)
    set_by: str
    reason: str
    set_at: datetime


def set_destination(
    connection: AnyConnection,
    *,
    owner: str,
    method: PayoutMethod | str,
    account: str,
    by: str,
    reason: str,
    now: datetime,
    holder_name: str | None = None,
) -> Destination:
    """Set where the owner's payouts go from now on. A batch that has a payout to the former one is not sent.

    Each call adds a version, also with the same account, and payouts wait again until it is old enough: that
    is what keeps somebody who took over an account from being paid at once. An IBAN may have spaces and small
    letters; it is checked (country, length, check digits) and stored without spaces. A token is opaque.
    `holder_name` is the name on the account, which an IBAN needs: banks compare it with their own. It is
    stored as it is; a file for a bank has it without accents.

    Raises:
        InvalidInput: an unknown method, a wrong IBAN, an IBAN without a name, a name that has characters
            which banks do not take or is too long for them, or a token that is too long or has spaces around
            it or control characters. The message has neither the account nor the name.
        MissingExtra: the extra `payouts`, which checks an IBAN, is not installed.
    """
    require_time("now", now)
    require_text("owner", owner)
    require_text("by", by)
    require_reason(reason)
    try:
        known = PayoutMethod(method)
    except ValueError:
        raise InvalidInput(
            f"destination of {owner!r}: method {method!r} is not IBAN or TOKEN", owner=owner
        ) from None
    stored = _require_iban(owner, account) if known is PayoutMethod.IBAN else _require_token(owner, account)
    _require_holder_name(owner, known, holder_name)
    enter_hour(connection, now=now)
    fetch(connection, "payouts/lock_owner", owner=owner)
    try:
        rows = fetch(
            connection,
            "payouts/add_destination",
            owner=owner,
            method=known.value,
            account=stored,
            masked=masked(known, stored),
            holder_name=holder_name,
            set_by=by,
            reason=reason,
            now=now,
        )
    except StatementError as error:
        # Its text has the parameters, and would bring the account and the name into a log.
        error.hide_parameters = True
        raise
    assert rows, "the version exists although its owner was locked"
    return _of_row(rows[0])


def show_destination(connection: AnyConnection, *, owner: str) -> Destination:
    """Return the owner's destination, its account masked.

    Raises:
        NotFound: the owner has none.
    """
    rows = fetch(connection, "payouts/find_destination", owner=require_text("owner", owner))
    if not rows:
        raise NotFound(f"owner {owner!r}: has no payout destination", owner=owner)
    return _of_row(rows[0])


def masked(method: PayoutMethod, account: str) -> str:
    """Return what may be shown of an account: of an IBAN its country and last four characters."""
    if method is PayoutMethod.IBAN:
        return f"{account[:2]}****{account[-4:]}"
    return "****" + (account[-4:] if len(account) >= _SHOWN_OF_TOKEN_FROM else "")


def _require_iban(owner: str, account: str) -> str:
    need("payouts", "schwifty", why=f"destination of {owner!r}: an IBAN is checked by schwifty")
    from schwifty import IBAN  # noqa: PLC0415 - reads its lists of banks; only a new IBAN needs it
    from schwifty.exceptions import SchwiftyException  # noqa: PLC0415

    given = account if isinstance(account, str) and account.isascii() else ""
    try:
        return str(IBAN("".join(given.split())).compact)
    except (SchwiftyException, ValueError) as error:
        # The library's message may have the number.
        fault = type(error).__name__.removeprefix("Invalid").lower()
        what = {
            "length": "wrong length",
            "checksumdigits": "wrong check digits",
            "countrycode": "no such country",
        }
        raise InvalidInput(
            f"destination of {owner!r}: not an IBAN ({what.get(fault, 'wrong form')})", owner=owner
        ) from None


def _require_token(owner: str, account: str) -> str:
    refusal = InvalidInput(
        f"destination of {owner!r}: not a token of 1 to 200 characters, without control characters or"
        " spaces around it",
        owner=owner,
    )
    try:
        token = require_text("account", account)
    except InvalidInput:
        # `require_text` would show it.
        raise refusal from None
    if token == masked(PayoutMethod.TOKEN, token):
        raise refusal
    return token


def _require_holder_name(owner: str, method: PayoutMethod, name: str | None) -> None:
    if name is None:
        if method is PayoutMethod.IBAN:
            raise InvalidInput(
                f"destination of {owner!r}: an IBAN needs holder_name, the name that the bank compares",
                owner=owner,
            )
        return
    try:
        fault = fault_of_holder_name(require_text("holder_name", name))
    except InvalidInput:
        # `require_text` would show it.
        fault = "is empty, too long, or has control characters or spaces around it"
    if fault:
        raise InvalidInput(f"destination of {owner!r}: holder_name {fault}", owner=owner)


def _of_row(row: Row) -> Destination:
    return Destination(
        destination_id=row["destination_id"],
        owner=row["owner"],
        version=row["version"],
        method=PayoutMethod(row["method"]),
        account=row["masked"],
        holder_name=row["holder_name"],
        set_by=row["set_by"],
        reason=row["reason"],
        set_at=row["set_at"],
    )
