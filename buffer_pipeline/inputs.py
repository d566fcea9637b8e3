"""Checks of texts, ids, times and files that come from outside."""

import stat
import unicodedata
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from buffer_pipeline.errors import InvalidInput, NotFound

EARLIEST: Final = datetime(1970, 1, 1, tzinfo=UTC)
LATEST: Final = datetime(3000, 1, 1, tzinfo=UTC)
"""Every time that a caller passes is at or after EARLIEST and before LATEST. Cooldowns that are added to it
stay before the year 10000."""
CLOCK_SKEW_MAX: Final = timedelta(minutes=1)
ID_MAX: Final = 2**63 - 1
NAME_LENGTH_MAX: Final = 200
"""Length limit of an owner, a job and a reference, which are the platform's own ids."""
TITLE_LENGTH_MAX: Final = 500
REASON_LENGTH_MAX: Final = 2000
PAYEE_TEXT_LENGTH_MAX: Final = 500


def require_text(
    name: str,
    value: str,
    *,
    length_max: int = NAME_LENGTH_MAX,
    optional: bool = False,
    may_have_lines: bool = False,
) -> str:
    """Return `value` unchanged if it can be stored and found again as it was written.

    Raises:
        InvalidInput: empty (unless `optional`), too long, with spaces around it, or with control
            characters (`may_have_lines` allows line breaks and tabs); the message starts with `name`.
    """
    # Fast path for almost every text: a printable text has no control characters, and no space except " ".
    if (
        isinstance(value, str)
        and 0 < len(value) <= length_max
        and value.isprintable()
        and value[0] != " " != value[-1]
    ):
        return value
    if not isinstance(value, str):
        raise InvalidInput(f"{name}: needs text, got {type(value).__name__}")
    if not value.strip():
        if optional and not value:
            return value
        raise InvalidInput(f"{name}: must not be empty")
    if len(value) > length_max:
        raise InvalidInput(f"{name}: {len(value)} characters long; at most {length_max}")
    if value != value.strip():
        raise InvalidInput(f"{name} {value!r}: starts or ends with a space")
    # Cc are control characters; Cs are halves of surrogate pairs, which are not valid UTF-8.
    allowed = "\n\r\t" if may_have_lines else ""
    if any(
        unicodedata.category(character) in {"Cc", "Cs"} and character not in allowed for character in value
    ):
        raise InvalidInput(f"{name} {value!r}: contains a control character")
    return value


def require_reason(value: str) -> str:
    """Return a reason unchanged; it may have several lines.

    Raises:
        InvalidInput: as `require_text`.
    """
    return require_text("reason", value, length_max=REASON_LENGTH_MAX, may_have_lines=True)


def require_payee_text(value: str | None) -> str | None:
    """Return what the payee is told of a freeze unchanged: one line, or None.

    Raises:
        InvalidInput: as `require_text`.
    """
    return None if value is None else require_text("payee_text", value, length_max=PAYEE_TEXT_LENGTH_MAX)


def require_id(what: str, value: int) -> int:
    """Return `value` if a row of this kind could have that id.

    Raises:
        InvalidInput: not an int: PostgreSQL would round 1.5 to another row's id.
        NotFound: below 1, or larger than PostgreSQL's bigint.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidInput(f"{what} {value!r}: needs an int, got {type(value).__name__}")
    if not 0 < value <= ID_MAX:
        # Python cannot write an int of more than 4,300 digits.
        named = value if abs(value) <= ID_MAX * ID_MAX else None
        shown = f"of {value.bit_length()} bits" if named is None else named
        raise NotFound(
            f"{what} {shown}: does not exist",
            hold_id=named if what == "hold" else None,
            backjob_id=named if what == "backjob" else None,
            freeze_ids=[named] if what == "freeze" and named is not None else (),
            notification_id=named if what == "notification" else None,
            payout_id=named if what == "payout" else None,
            payout_batch_id=named if what == "payout batch" else None,
        )
    return value


def require_time(name: str, value: datetime) -> datetime:
    """Return `value` in UTC.

    Raises:
        InvalidInput: a naive time, whose meaning depends on a time zone; a time before `EARLIEST`; or one
            not before `LATEST`.
    """
    if not isinstance(value, datetime):
        raise InvalidInput(f"{name}: needs a datetime, got {type(value).__name__}")
    if value.tzinfo is None or value.utcoffset() is None:
        raise InvalidInput(
            f"{name} {value.isoformat()}: has no time zone; write {value.isoformat()}Z for UTC"
        )
    if not EARLIEST <= value < LATEST:
        raise outside_the_years(name, value)
    return value.astimezone(UTC)


def outside_the_years(name: str, value: datetime) -> InvalidInput:
    """Return the refusal of a time before `EARLIEST` or not before `LATEST`."""
    return InvalidInput(
        f"{name} {value.isoformat()}: lies outside the years {EARLIEST.year} to {LATEST.year - 1}"
    )


def require_not_before(
    now: datetime,
    began: datetime,
    *,
    what: str,
    backjob_id: int | None = None,
    freeze_ids: Sequence[int] = (),
) -> datetime:
    """Return `now`, or `began` if `now` is slightly before it: the end of something that began at `began`.

    The clocks of two hosts differ a little, so `now` may be before `began` by at most CLOCK_SKEW_MAX.

    Raises:
        InvalidInput: it is further back. The message names `what` began, and the refusal has the ids.
    """
    if now < began - CLOCK_SKEW_MAX:
        raise InvalidInput(
            f"now {now.isoformat()}: lies before {what} at {began.isoformat()}",
            backjob_id=backjob_id,
            freeze_ids=freeze_ids,
        )
    return max(now, began)


def require_file(path: Path) -> None:
    """Refuse a path that is neither a file nor a folder: a pipe can be read only once and may never end.

    A path that does not exist or cannot be read is accepted here; opening it raises the error.

    Raises:
        InvalidInput: a pipe, a socket, a device, or not a valid path.
    """
    try:
        mode = path.stat().st_mode
    except OSError:
        return
    except ValueError:
        raise InvalidInput(f"{str(path)!r}: not a path") from None
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise InvalidInput(f"{path}: not a file; a pipe or a device is read only once, so write it to a file")


def parse_time(name: str, text: str) -> datetime:
    """Return an ISO 8601 time such as 2026-11-18T23:35Z, in UTC.

    Raises:
        InvalidInput: not ISO 8601, or without a time zone.
    """
    try:
        value = datetime.fromisoformat(text.strip())
    except ValueError:
        raise InvalidInput(f"{name} {text!r}: not an ISO 8601 time such as 2026-11-18T23:35Z") from None
    return require_time(name, value)


def parse_as_of(text: str | None, *, clock: datetime) -> datetime:
    """Return the time in `text`, or `clock` if there is none.

    Raises:
        InvalidInput: not a time with a zone, or after the database's `clock`.
    """
    if text is None:
        return clock
    as_of = parse_time("as_of", text)
    if as_of > clock:
        raise InvalidInput(f"as_of {text}: lies after the database's clock, {clock.isoformat()}")
    return as_of
