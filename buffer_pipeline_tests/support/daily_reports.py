"""Books whose daily report was calculated by hand, and the content of a report."""

import re
from datetime import UTC, date, datetime
from html.parser import HTMLParser
from typing import Any, Final
from xml.etree import ElementTree

from sqlalchemy import Connection, text

from buffer_pipeline.hold import HoldState
from buffer_pipeline.release import release_matured
from buffer_pipeline.reports.daily import DailyReport
from buffer_pipeline_tests.support.builders import place_hold

TODAY: Final = date(2026, 3, 16)
SVG_BYTES_MAX: Final = 60_000


def at(day: int, hour: int = 0, minute: int = 0) -> datetime:
    """Return a time in March 2026, the month of TODAY."""
    return datetime(2026, 3, day, hour, minute, tzinfo=UTC)


def release_at(connection: Connection, now: datetime) -> None:
    """Release all that is due, as the schedule does."""
    release_matured(connection, now=now, batch_limit=1000)


def a_fortnight(connection: Connection) -> None:
    """Books whose figures for TODAY and the fortnight before are calculated by hand in the tests."""
    place_hold(connection, amount="70.00", held_at=at(3, 10))
    place_hold(connection, amount="140.00", held_at=at(9, 8), payee="worker-18")
    place_hold(connection, amount="60.00", held_at=at(9, 9))
    place_hold(connection, amount="1000", currency="JPY", held_at=at(9, 9, 5))
    release_at(connection, at(10, 10, 30))  # The first hold, 30 minutes late.
    release_at(
        connection, at(16, 8, 10)
    )  # The second hold, 10 minutes late. The third and fourth, 40 and 35 minutes late.
    release_at(connection, at(16, 9, 40))  # The third and the fourth, 40 and 35 minutes late.
    place_hold(connection, amount="14.00", held_at=at(16, 11), payee="worker-18", state=HoldState.RELEASED)
    place_hold(connection, amount="10.00", held_at=at(16, 12), state=HoldState.FROZEN)
    place_hold(connection, amount="5.00", held_at=at(16, 13), job="job-9", state=HoldState.REFUNDED)


def figure(report: DailyReport, name: str, currency: str | None) -> tuple[Any, Any, Any]:
    """Return a figure's value on the day, mean of the fortnight, and value of the period."""
    (found,) = [line for line in report.figures if (line.name, line.currency) == (name, currency)]
    return found.day, found.fortnight_mean, found.period


SVG: Final = "{http://www.w3.org/2000/svg}"


def size(svg: bytes) -> tuple[int, int]:
    """Return the width and height of a picture, which contains no script."""
    document = ElementTree.fromstring(svg)
    assert not list(document.iter(f"{SVG}script"))
    return int(document.attrib["width"]), int(document.attrib["height"])


def colours(svg: bytes) -> set[str]:
    """Return the colours of lines and areas with more than one point, for example #0072b2."""
    document = ElementTree.fromstring(svg)
    styles = "".join(style.text or "" for style in document.iter(f"{SVG}style"))
    return {
        re.search(rf"\.{colour}[,{{][^}}]*fill:(#\w+)", styles)[1]  # type: ignore[index]
        for group in document.iter(f"{SVG}g")
        if group.attrib.get("class", "").startswith("series ")
        for colour in group.attrib["class"].split()
        if colour.startswith("color-")
        for path in group.iter(f"{SVG}path")
        if len(set(re.findall(r"-?[\d.]+ -?[\d.]+", path.attrib["d"]))) > 1
    }


def write_into(connection: Connection, moment: datetime) -> None:
    """Mark the hour of a time as being written until the connection's transaction ends."""
    connection.execute(text("SELECT buffer.enter_hour(:moment)"), {"moment": moment})


class Page(HTMLParser):
    """The parts of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.alts: list[str] = []
        self.texts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action")]
        self.alts += [value or "" for name, value in attrs if name == "alt"]

    def handle_data(self, data: str) -> None:
        self.texts.append(data.strip())
