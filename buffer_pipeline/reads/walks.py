"""Which index lists the holds that a call asks for: the one that finds the fewest candidates.

Each walk is in the order of a key that never changes, so that no row is shown twice or left out because
others were added or changed.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from buffer_pipeline.database import AnyConnection, Row, array_text, fetch
from buffer_pipeline.hold import UNSETTLED, HoldState
from buffer_pipeline.reads.everything import Kept, kept_now

SCANNED_MAX: Final = 10_000
"""How many holds a walk by id looks at in one statement, if a filter may leave most of them out."""

_CHEAPER: Final = 10
"""A row that is only scanned costs about a tenth of one that is read with its state."""


_ALL_KEYS: Final = {"walk_due": "keys_due", "walk_job": "keys_job", "walk_metadata": "keys_metadata"}
"""Walks that read all that matches for each page, and the statements that return the ids of all."""


@dataclass(frozen=True, kw_only=True)
class Walk:
    """A statement that returns the next keys and ids; `every_row_matches` if no filter is left to check."""

    connection: AnyConnection
    statement: str
    newest: bool
    every_row_matches: bool
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def rows(self, key: int, size: int, *, is_first_page: bool) -> tuple[Sequence[Row], int | None, int]:
        """Return the next candidates after `key`, the key up to which was read, and the cost in rows.

        The key is None at the end of the list. A row that does not match has no `hold_id`.
        """
        kept = kept_now()
        if kept is not None and not is_first_page and self.statement in _ALL_KEYS:
            return self._rows_kept(kept, key, size)
        by_id = self.statement == "walk_holds"
        scanned_max = size if self.every_row_matches else SCANNED_MAX
        rows = fetch(
            self.connection,
            f"reads/{self.statement}",
            newest=self.newest,
            key=key,
            row_limit=size,
            **self.parameters,
            **({"scanned_max": scanned_max} if by_id else {}),
        )
        is_last = len(rows) < size
        examined = len(rows)
        if by_id:
            scanned = rows[0]["rows_scanned"] if rows else 0
            examined += scanned // _CHEAPER
            is_last = is_last and scanned < scanned_max
        return rows, None if is_last else rows[-1]["key"], examined

    def _rows_kept(self, kept: Kept, key: int, size: int) -> tuple[Sequence[Row], int | None, int]:
        """Return the same of a walk that reads all that matches: for the pages after the first one, once."""
        wanted = {name: value for name, value in self.parameters.items() if name != "filters"}

        def read() -> list[int]:
            found = fetch(
                self.connection, f"reads/{_ALL_KEYS[self.statement]}", newest=self.newest, key=key, **wanted
            )
            return [row["hold_id"] for row in found]

        walk = (id(self.connection), self.statement, repr(wanted), self.newest)
        keys = kept.keys_after(walk, key, size, newest=self.newest, read=read)
        matching = fetch(
            self.connection,
            "reads/holds_of_keys",
            ids=array_text(keys),
            filters=self.parameters["filters"],
        )
        by_id = {row["hold_id"]: row for row in matching}
        rows = [{"hold_id": None, **by_id.get(each, {}), "key": each} for each in keys]
        return rows, keys[-1] if len(keys) == size else None, len(keys)


def walk_of(
    connection: AnyConnection,
    *,
    filters: Mapping[str, Any],
    metadata: Sequence[Sequence[str]],
    newest: bool,
) -> Walk:
    """Return the walk for the filters that are not None. `metadata` has the texts of each of its keys."""
    given = {name for name, value in filters.items() if value is not None}
    if metadata:
        given.add("metadata")
    statement, checked, parameters = _chosen(filters, metadata)
    return Walk(
        connection=connection,
        statement=statement,
        newest=newest,
        every_row_matches=given <= checked,
        parameters={**parameters, "filters": filters_text(filters, metadata)},
    )


def _chosen(
    filters: Mapping[str, Any], metadata: Sequence[Sequence[str]]
) -> tuple[str, set[str], dict[str, object]]:
    """Return the statement, the filters that it checks alone, and its parameters."""
    state, payee, payer, due_by = (filters[name] for name in ("state", "payee", "payer", "due_by"))
    own = ("kind", "held_since", "held_before")
    chosen: tuple[str, set[str], dict[str, object]]
    if filters["job"] is not None:
        chosen = ("walk_job", {"job"}, {"job": filters["job"]})
    elif metadata:
        one, other = _contained(metadata)
        chosen = ("walk_metadata", set(), {"contained": one, "or_contained": other})
    elif payee is not None and (state in UNSETTLED or due_by is not None):
        chosen = ("walk_unsettled_of_payee", {"payee"}, {"payee": payee})
    elif payee is not None:
        chosen = ("walk_holds_of_owner", {"payee"}, {"owner": payee, "as_payer": False})
    elif payer is not None:
        chosen = ("walk_holds_of_owner", {"payer"}, {"owner": payer, "as_payer": True})
    elif due_by is not None:
        chosen = ("walk_due", {"due_by"}, {"due_by": due_by})
    elif state is HoldState.FROZEN:
        chosen = ("walk_frozen", {"state"}, {})
    elif state is HoldState.BUFFERED:
        chosen = ("walk_unsettled", set(), {})
    else:
        chosen = ("walk_holds", set(), {name: filters[name] for name in own})
    return chosen


def filters_text(filters: Mapping[str, Any], metadata: Sequence[Sequence[str]]) -> str:
    """Return the filters as JSON. `metadata` is an array of arrays of objects, of which one counts."""
    pairs = [
        f"{json.dumps(name)}:{json.dumps(value.isoformat() if isinstance(value, datetime) else str(value))}"
        for name, value in filters.items()
        if value is not None
    ]
    if metadata:
        wanted = ",".join(f"[{','.join(texts)}]" for texts in metadata)
        pairs.append(f'"metadata":[{wanted}]')
    return f"{{{','.join(pairs)}}}"


def _contained(metadata: Sequence[Sequence[str]]) -> tuple[str, str]:
    """Return two objects of which the metadata contains one.

    They have all keys, but of those with two values only the first: a text that is written like a number has
    two. The function that reads the holds checks all of them.
    """
    certain = [texts[0] for texts in metadata if len(texts) == 1]
    uncertain = next((texts for texts in metadata if len(texts) > 1), ["{}", "{}"])
    return _merged([*certain, uncertain[0]]), _merged([*certain, uncertain[1]])


def _merged(objects: Sequence[str]) -> str:
    return "{" + ",".join(each[1:-1] for each in objects if each != "{}") + "}"
