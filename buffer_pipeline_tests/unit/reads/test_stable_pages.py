"""Pages stay stable while others write: what was there before the first page is shown exactly once."""

import random
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Event
from typing import Any

import pytest
from sqlalchemy import Connection, Engine

from buffer_pipeline.freeze import freeze_hold, unfreeze_hold
from buffer_pipeline.hold import FreezeKind
from buffer_pipeline.reads import list_holds
from buffer_pipeline.release import release_early
from buffer_pipeline.reschedule import reschedule_hold
from buffer_pipeline_tests.support.builders import ADMIN, DAY_7, NOON, PAYEE, PAYER, place_hold

HOLDS = 60


def write(engine: Engine, hold_ids: list[int], stop: Event) -> None:
    """Add holds, freeze and unfreeze, move dates, and release the even ones, until `stop`."""
    chance = random.Random(1)
    number = 0
    while not stop.is_set():
        number += 1
        with engine.begin() as connection:
            hold_id = chance.choice(hold_ids)
            by: dict[str, Any] = {"by": ADMIN, "reason": "a look", "now": NOON}
            place_hold(connection, reference=f"late-{number}", job=f"late-{number}")
            freeze = freeze_hold(connection, hold_id=hold_ids[-1], kind=FreezeKind.ADMIN, **by)
            if number % 2:
                unfreeze_hold(connection, freeze_id=freeze.freeze_id, **by)
            if hold_id % 2:
                to = DAY_7 + timedelta(minutes=number)
                reschedule_hold(connection, hold_id=hold_id, to=to, as_admin=True, **by)
            elif hold_id != hold_ids[-1]:
                hold_ids.remove(hold_id)
                release_early(connection, hold_id=hold_id, as_admin=True, **by)


@pytest.mark.parametrize("oldest_first", [False, True], ids=["newest first", "oldest first"])
@pytest.mark.parametrize(
    "filters",
    [{}, {"owner": PAYEE}, {"owner": PAYER, "role": "PAYER"}, {"kind": "PAYEE"}, {"held_since": NOON}],
    ids=["all", "payee", "payer", "kind", "held since"],
)
def test_what_was_there_is_shown_once(engine: Engine, filters: dict[str, Any], oldest_first: bool) -> None:
    """Although holds are added, frozen, moved and released between and during the pages."""
    with engine.begin() as connection:
        before = [place_hold(connection, job=f"job-{number}") for number in range(HOLDS)]
    stop = Event()

    shown: list[int] = []
    with ThreadPoolExecutor(1) as pool, engine.connect() as connection:
        writer = pool.submit(write, engine, list(before), stop)
        cursor, pages = None, 0
        # Oldest first the writer could add for ever.
        while (pages == 0 or cursor is not None) and not (oldest_first and set(before) <= set(shown)):
            page = list_holds(connection, **filters, oldest_first=oldest_first, limit=3, cursor=cursor)
            connection.rollback()
            shown += [hold.hold_id for hold in page.items]
            cursor, pages = page.next_cursor, pages + 1
        stop.set()
        writer.result()

    assert len(shown) == len(set(shown))
    assert [hold_id for hold_id in shown if hold_id in set(before)] == (
        before if oldest_first else before[::-1]
    )
    if not oldest_first:
        assert len(shown) - len(before) <= 3


@pytest.mark.parametrize("owner", [None, PAYEE])
def test_what_stops_to_match_leaves_no_gap(connection: Connection, owner: str | None) -> None:
    """A hold that was released meanwhile is not among those that wait, and no other one is left out."""
    holds = [place_hold(connection, job=f"job-{number}") for number in range(6)]
    first = list_holds(connection, state="BUFFERED", owner=owner, limit=2)

    for hold_id in (holds[5], holds[2]):
        release_early(connection, hold_id=hold_id, by=ADMIN, reason="done", as_admin=True, now=NOON)
    second = list_holds(connection, state="BUFFERED", owner=owner, limit=2, cursor=first.next_cursor)

    assert [hold.hold_id for hold in first.items] == [holds[5], holds[4]]
    assert [hold.hold_id for hold in second.items] == [holds[3], holds[1]]


def test_a_page_ends_after_a_number_of_rows(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """A filter that few rows match gives short pages, and the pages together have them all."""
    monkeypatch.setattr("buffer_pipeline.reads.page.EXAMINED_MAX", 4)
    monkeypatch.setattr("buffer_pipeline.reads.page.CHUNK_MAX", 2)
    holds = [place_hold(connection, job=f"job-{number}") for number in range(12)]
    release_early(connection, hold_id=holds[1], by=ADMIN, reason="done", as_admin=True, now=NOON)

    found, cursor, pages = list[int](), None, 0
    while pages == 0 or cursor is not None:
        page = list_holds(connection, state="RELEASED", owner=PAYEE, limit=1, cursor=cursor)
        found += [hold.hold_id for hold in page.items]
        cursor, pages = page.next_cursor, pages + 1

    assert found == [holds[1]]
    assert pages > 2
