"""Checks of an installation: the database server and the books, one small check each.

`orchestration.health` has the checks of what Dagster knows. Reads only.
"""

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import psycopg
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from buffer_pipeline.audit.reconcile import INVARIANTS, reconcile
from buffer_pipeline.audit.seals import verify
from buffer_pipeline.currencies import places_of
from buffer_pipeline.database import (
    INSTALL_A_NEWER_VERSION,
    OLDEST_SERVER,
    REVISION,
    Row,
    books_revision,
    database_clock,
    fetch,
    first_line,
    server_clock,
    snapshot,
)
from buffer_pipeline.errors import InvalidInput, PaymentBufferError
from buffer_pipeline.hours import overdue_by
from buffer_pipeline.money import listed_places
from buffer_pipeline.notifications.outbox import delivery_figures
from buffer_pipeline.reports.due import due_holds

SKEW_SECONDS_MAX: Final = 2.0
"""A run takes longer than this from its tick to its first statement, so it finds what is due on the hour."""

WAITING_MAX: Final = timedelta(hours=1)
"""A message is sent within a minute. If one waits longer, its receiver is down or no daemon runs."""

SMALL_BOOKS_BYTES: Final = 64 * 2**20
"""Up to this size of the transactions, about 450,000 of them, `doctor` checks the whole books itself."""

FREE_BYTES_MIN: Final = 2**30
FREE_SHARE_MIN: Final = 0.05

KEPT_BYTES_MAX: Final = 512 * 2**20

_IDS_SHOWN: Final = 10
_ANSWER_SECONDS_MAX: Final = 30
_DENIED: Final = "42501"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The result of a check, and what to do if it is not ok."""

    check: str
    ok: bool
    fact: str
    advice: str | None = None


Answer = tuple[bool, str, str]
"""Whether it is ok, the fact, and what to do if it is not."""


def look(check: str, ask: Callable[[], Answer]) -> Finding:
    """Make a check. If it raises an error, the finding has the reason and is not ok."""
    try:
        ok, fact, advice = ask()
    except Exception as error:  # noqa: BLE001 - any error is a finding
        return Finding(check=check, ok=False, fact=f"cannot be checked: {_reason(error)}", advice=_way(error))
    return Finding(check=check, ok=ok, fact=fact, advice=None if ok else advice)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _reason(error: Exception) -> str:
    for each in _chain(error):
        if isinstance(each, PaymentBufferError):
            return str(each)
        if isinstance(each, DBAPIError):
            return first_line(each)
        if isinstance(each, psycopg.Error):
            return str(each).strip().splitlines()[0]
        if isinstance(each, OSError) and each.strerror:
            return f"{each.filename or 'a file'}: {each.strerror}"
    # The text of another library's error may contain a password from its configuration.
    return type(error).__name__


def _way(error: Exception) -> str:
    for each in _chain(error):
        if getattr(getattr(each, "orig", None), "sqlstate", None) == _DENIED:
            return "run `doctor` as a login that may read it: docs/roles.md"
    return "correct what it names, and run `doctor` again"


@contextmanager
def asking(engine: Engine) -> Iterator[Connection]:
    """Yield a connection that sees one snapshot, whose statements end after half a minute."""
    with snapshot(engine) as connection:
        fetch(connection, "doctor/patience", milliseconds=str(_ANSWER_SECONDS_MAX * 1000))
        yield connection


def database(engine: Engine) -> Answer:
    """Check whether the server answers, and its version."""
    with asking(engine) as connection:
        server = fetch(connection, "doctor/server")[0]
    oldest = OLDEST_SERVER // 10_000
    return (
        server["number"] >= OLDEST_SERVER,
        f"PostgreSQL {server['version']}",
        f"upgrade the server to PostgreSQL {oldest} or newer",
    )


def migration(engine: Engine) -> Answer:
    """Compare the revision of the books with the one that this version needs."""
    found = books_revision(engine)
    if found == REVISION:
        return True, f"the books are at revision {REVISION}", ""
    fact = f"the books are at revision {found or 'none'}, this version needs {REVISION}"
    if found is not None and found > REVISION:
        return False, fact, INSTALL_A_NEWER_VERSION
    return False, fact, "run `buffer-pipeline migrate` as the books' owner"


def roles(engine: Engine) -> Answer:
    """Check whether the roles exist and have their rights, and whether this login is one of them."""
    with asking(engine) as connection:
        found = fetch(connection, "doctor/roles")
    missing = [role["name"] for role in found if not role["is_there"]]
    if missing:
        statements = " ".join(f"CREATE ROLE {name};" for name in missing)
        return (
            False,
            f"missing: {', '.join(missing)}",
            f"run `{statements}` and grant their rights: docs/roles.md",
        )
    without = [role["name"] for role in found if not role["has_its_rights"]]
    if without:
        return (
            False,
            f"without their rights in these books: {', '.join(without)}",
            "restore the books with their privileges (pg_restore without --no-privileges): docs/roles.md",
        )
    return _login(found)


def _login(found: Sequence[Row]) -> Answer:
    login = found[0]["login"]
    member = [role["name"] for role in found if role["is_ours"]]
    if found[0]["owns_the_books"]:
        return True, f"all four have their rights; {login} owns the books", ""
    return (
        bool(member),
        f"all four have their rights; {login} is " + (" and ".join(member) or "none of them"),
        f"run `GRANT buffer_releaser TO {login};`, or use Dagster's login",
    )


def clock(engine: Engine, *, read: Callable[[], datetime]) -> Answer:
    """Compare this machine's clock, which `read` returns, with the database's."""
    with asking(engine) as connection:
        before = read()
        there = server_clock(connection)
        after = read()
    # The database read its clock between the two, so the network's delay is not counted as a difference.
    ahead, behind = (before - there).total_seconds(), (there - after).total_seconds()
    skew = max(ahead, behind, 0.0)
    fact = "this machine's clock and the database's agree"
    if skew > 0.0:
        where = "ahead of" if ahead > behind else "behind"
        fact = f"this machine's clock is {skew:,.1f} s {where} the database's"
    return (
        skew <= SKEW_SECONDS_MAX,
        fact,
        "let NTP set the clocks of both machines; the database's clock decides what is due",
    )


def overdue(engine: Engine) -> Answer:
    """Check whether a payment is overdue."""
    with asking(engine) as connection:
        due = due_holds(connection, due_by=overdue_by(database_clock(connection)))
    if due.oldest_release_date is None:
        return True, "no payment has been due for more than an hour", ""
    plural = "" if due.holds == 1 else "s"
    return (
        False,
        f"{due.holds:,} payment{plural} due for more than an hour, the oldest since"
        f" {stamp(due.oldest_release_date)}",
        "run `buffer-pipeline release`; the lines schedules, daemon and last release show why no run took it",
    )


def frozen(engine: Engine) -> Answer:
    """Check whether a payment is FROZEN without an open freeze, so that nothing would ever release it."""
    with asking(engine) as connection:
        found = fetch(connection, "doctor/frozen_alone", shown=_IDS_SHOWN)[0]
    if not found["holds"]:
        return True, "each frozen payment has an open freeze", ""
    plural = "" if found["holds"] == 1 else "s"
    more = ", …" if found["holds"] > _IDS_SHOWN else ""
    return (
        False,
        f"{found['holds']:,} payment{plural} frozen without an open freeze: hold"
        f" {', '.join(map(str, found['hold_ids']))}{more}",
        "run `buffer-pipeline freeze` and then `unfreeze` for each: docs/runbook.md; then `reconcile`",
    )


def outbox(engine: Engine) -> Answer:
    """Check for dead letters, and for messages that wait too long."""
    with asking(engine) as connection:
        figures = delivery_figures(connection)
        since = database_clock(connection) - WAITING_MAX
    waiting = sum(figure.waiting for figure in figures)
    dead = {figure.endpoint: figure.dead for figure in figures if figure.dead}
    late = [
        figure for figure in figures if figure.oldest_waiting is not None and figure.oldest_waiting < since
    ]
    if dead:
        named = ", ".join(f"{count:,} of {endpoint}" for endpoint, count in dead.items())
        return (
            False,
            f"dead letters: {named}; {_waiting(waiting)}",
            "`buffer-pipeline notifications list --state DEAD` shows why; then `notifications replay`",
        )
    if late:
        endpoint = late[0].endpoint or "not dispatched"
        oldest = late[0].oldest_waiting
        assert oldest is not None
        return (
            False,
            f"{_waiting(waiting)}, the oldest ({endpoint}) since {stamp(oldest)}",
            "`buffer-pipeline notifications list --state WAITING` shows why; `notifications drain` sends",
        )
    return True, f"no dead letters; {_waiting(waiting)}", ""


def _waiting(number: int) -> str:
    return "1 notification waits" if number == 1 else f"{number:,} notifications wait"


def currencies(engine: Engine) -> Answer:
    """Compare the decimal places of the books' currencies with the installed list of ISO 4217."""
    with asking(engine) as connection:
        places = places_of(connection)
    gone, differing = [], []
    for currency, stored in places.items():
        try:
            listed = listed_places(currency)
        except InvalidInput:
            gone.append(f"{currency} ({stored} places)")
        else:
            if listed != stored:
                differing.append(f"{currency} has {stored} places in the books and {listed} in the list")
    if differing:
        return (
            False,
            f"these currencies differ from the installed list of ISO 4217: {', '.join(differing)}",
            "the books' places apply, also to new amounts: inform those who send or receive amounts in them",
        )
    fact = "1 currency" if len(places) == 1 else f"{len(places)} currencies"
    fact += "" if gone else ", with the decimal places of ISO 4217"
    return True, fact + (f"; no longer in ISO 4217: {', '.join(gone)}" if gone else ""), ""


def small_books(engine: Engine) -> bool:
    """Return whether the whole books can be checked in a second or two."""
    with asking(engine) as connection:
        size: int = fetch(connection, "doctor/size_of_books")[0]["transaction_bytes"]
    return size <= SMALL_BOOKS_BYTES


def books(engine: Engine) -> Answer:
    """Check every invariant against the transactions, and compare history with its seals."""
    with asking(engine) as connection:
        violations = reconcile(connection)
        verification = verify(connection)
    advice = "stop releases; `buffer-pipeline reconcile` and `verify` list the rows"
    wrong = []
    if violations:
        named = ", ".join(f"{violation.invariant} ({len(violation.rows)} rows)" for violation in violations)
        wrong.append(f"broken: {named}")
    # An altered transaction is the most common cause of a broken invariant, and the seal names it.
    if verification.offence is not None:
        wrong.append(verification.offence)
    if wrong:
        return False, "; ".join(wrong), advice
    return (
        True,
        f"proved now: {len(INVARIANTS)} invariants hold, {verification.lines:,} transactions are as sealed",
        "",
    )


def local_disk(folder: Path) -> Answer:
    """Check the free space on the disk of the embedded server's data."""
    usage = shutil.disk_usage(folder)
    free = usage.free / usage.total
    return (
        usage.free >= FREE_BYTES_MIN and free >= FREE_SHARE_MIN,
        f"{_size(usage.free)} of {_size(usage.total)} free ({free:.0%}) at {folder}",
        "free some space: a full disk stops releases and may stop the server",
    )


def remote_disk(engine: Engine) -> Answer:
    """Check what SQL knows about the server's disk. It does not know the free space."""
    with asking(engine) as connection:
        found = fetch(connection, "doctor/disk")[0]
    size = f"the books' database uses {_size(found['database_bytes'])}"
    if found["kept_bytes"] > KEPT_BYTES_MAX:
        return (
            False,
            f"{size}; {_size(found['kept_bytes'])} of WAL is kept for replication slots that nobody reads:"
            f" {', '.join(found['slots'])}",
            "start their readers, or run `SELECT pg_drop_replication_slot('…')`, before WAL fills the disk",
        )
    return True, f"{size}; SQL cannot tell how much space is left: monitor the server's disk", ""


def stamp(moment: datetime) -> str:
    """Return a time as text, in UTC."""
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def _size(number: int) -> str:
    size = float(number)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1024:  # noqa: PLR2004 - bytes in a kilobyte, and so on
            return f"{size:.0f} {unit}" if unit in {"B", "kB"} else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TB"
