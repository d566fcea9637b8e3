"""Who did what, when and why. Reads only."""

import json
from datetime import datetime
from operator import itemgetter
from typing import Any, Final

from sqlalchemy import Connection

from buffer_pipeline.database import array_text, fetch
from buffer_pipeline.errors import InvalidInput
from buffer_pipeline.inputs import require_id, require_time
from buffer_pipeline.reports.rows import Rows

LIMIT: Final = 100
"""How many lines are listed if nobody says how many."""

LIMIT_MAX: Final = 1_000_000

_COLUMNS: Final = ("at", "by", "verb", "owner", "hold_id", "reason")
_DATES: Final = {"from_date": "from", "to_date": "to"}


def audit_trail(
    connection: Connection,
    *,
    owner: str | None = None,
    hold_id: int | None = None,
    by: str | None = None,
    since: datetime | None = None,
    limit: int = LIMIT,
) -> Rows:
    """Return who did what: the newest first, at most `limit` of the lines that match every given filter.

    `owner` is whose money it is: the payee of the hold, the owner of the wallet, the frozen owner, the owner
    that a rule was assigned to, or who is paid out. A line has `at`, `by`, `verb`, `owner`, `hold_id`,
    `reason`, and in `detail` what else the verb knows, such as `kind`, `freeze_id`, `amount_minor` with its
    `currency`, or the dates `from` and `to`. What the caller did not say is None: `by` of a deposit or a
    withdrawal, `by` and `reason` of an assignment or a retirement of a rule. A rule, a batch of payouts and a
    status file have no `owner`. A request of a payout has a `reason` only if an admin overrode something.

    An owner's freeze is one line, however many holds it froze. Only with `hold_id` the freeze of that hold is
    a line, whose `owner_freeze_id` names the owner's freeze. An earning's freeze is one line too; of each of
    its shares, the line has the `freeze_id` and the references of the earning's freeze, which is the one that
    can be closed. Until the caller's transaction ends, all its statements read by index.

    Raises:
        InvalidInput: `limit` is below 1 or above LIMIT_MAX, or another value cannot be accepted.
        NotFound: no hold could have this id.
    """
    if not 1 <= limit <= LIMIT_MAX:
        raise InvalidInput(f"limit {limit}: must be from 1 to {LIMIT_MAX}")
    hold_id = None if hold_id is None else require_id("hold", hold_id)
    filters = {
        "acted_by": by,
        "since": None if since is None else require_time("since", since),
        "row_limit": limit,
    }
    fetch(connection, "database/read_by_index")
    if owner is None and hold_id is None:
        facts = fetch(connection, "report/audit_newest", **filters)
    else:
        facts = fetch(connection, "report/audit_of_holds", **filters, owner=owner, hold_id=hold_id)
    of_holds = fetch(
        connection,
        "report/audit_lines",
        sources=array_text([fact["source"] for fact in facts]),
        ids=array_text([fact["id"] for fact in facts]),
    )
    others = [
        row
        for statement in ("report/audit_owners_and_rules", "report/audit_payouts")
        if hold_id is None
        for row in fetch(connection, statement, **filters, owner=owner)
    ]
    newest = sorted([*others, *of_holds], key=itemgetter("at"), reverse=True)[:limit]
    return [_line(dict(row)) for row in newest]


def _line(row: dict[str, Any]) -> dict[str, Any]:
    line = {name: row.pop(name, None) for name in _COLUMNS}
    known = json.loads(row.pop("detail", None) or "{}")
    found = {_DATES.get(name, name): value for name, value in row.items() if value is not None}
    return {**line, "detail": {**found, **known}}
