"""Lists of few columns: one statement walks an index, another reads the rows."""

from collections.abc import Callable
from typing import Final, TypeVar

from buffer_pipeline.database import AnyConnection, Row, array_text, fetch
from buffer_pipeline.inputs import ID_MAX
from buffer_pipeline.reads.everything import kept_now
from buffer_pipeline.reads.page import Listing, Page, Step, read_page

Item = TypeVar("Item")

_READ_ALL: Final = frozenset(
    {
        "walk_backjobs_of_job",
        "walk_debts_of_owner",
        "walk_open_backjobs",
        "walk_open_debts",
        "walk_payouts_of_batch",
        "walk_requested_payouts",
        "walk_sent_payouts",
    }
)
"""Walks that read all that matches for each page."""


def list_rows(
    connection: AnyConnection,
    listing: Listing,
    *,
    walk: tuple[str, dict[str, object]],
    rows: tuple[str, dict[str, object]],
    id_name: str,
    make: Callable[[Row], Item],
    every_row_matches: bool,
) -> Page[Item]:
    """Return a page. `walk` and `rows` are the names of statements and their parameters."""

    newest = not listing.oldest_first

    def read_keys(key: int, row_limit: int) -> list[int]:
        found = fetch(connection, f"reads/{walk[0]}", newest=newest, key=key, row_limit=row_limit, **walk[1])
        return [row["key"] for row in found]

    def next_step(key: int, size: int) -> Step[Item]:
        kept = kept_now()
        if kept is None or listing.cursor is None or walk[0] not in _READ_ALL:
            keys = read_keys(key, size)
        else:
            keys = kept.keys_after(
                (id(connection), repr(walk), newest),
                key,
                size,
                newest=newest,
                read=lambda: read_keys(key, ID_MAX),
            )
        items = {}
        if keys:
            matching = fetch(connection, f"reads/{rows[0]}", ids=array_text(keys), **rows[1])
            items = {row[id_name]: make(row) for row in matching}
        through = keys[-1] if len(keys) == size else None
        return Step([(key, items.get(key)) for key in keys], through, len(keys))

    return read_page(listing, next_step, every_row_matches=every_row_matches)
