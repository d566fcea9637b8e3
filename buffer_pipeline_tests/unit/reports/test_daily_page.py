"""The daily report's pictures and its page."""

import base64
import re
from dataclasses import replace

import pytest
from sqlalchemy import Connection

from buffer_pipeline.reports.daily import Figure, daily_report, draw, render_page
from buffer_pipeline_tests.support.builders import place_hold
from buffer_pipeline_tests.support.daily_reports import (
    SVG_BYTES_MAX,
    TODAY,
    Page,
    a_fortnight,
    at,
    colours,
    release_at,
    size,
)


def test_pictures_decode_and_show_what_there_is(connection: Connection) -> None:
    """Three small SVGs with a panel per currency, blue for BUFFERED and amber for FROZEN."""
    a_fortnight(connection)
    place_hold(connection, amount="500.00", held_at=at(15, 9))

    plots = draw(daily_report(connection, day=TODAY))

    assert list(plots) == ["released", "in_buffer", "lateness"]
    assert [size(svg) for svg in plots.values()] == [(900, 430), (900, 460), (900, 260)]
    assert max(map(len, plots.values())) < SVG_BYTES_MAX
    assert colours(plots["released"]) == {"#0072b2"}
    assert colours(plots["in_buffer"]) == {"#0072b2", "#e69f00"}
    assert colours(plots["lateness"]) == {"#0072b2", "#e69f00"}


@pytest.mark.parametrize("days", [1, 366])
def test_pictures_of_any_period_stay_small(connection: Connection, days: int) -> None:
    """From a day to a year, also with more currencies than fit."""
    for currency in ("EUR", "GBP", "JPY", "PHP", "SGD", "USD"):
        for day in range(1, 17):
            place_hold(
                connection, amount="90", currency=currency, held_at=at(day), release_date=at(day, day, 30)
            )
            release_at(connection, at(day, day, 30 + day))

    plots = draw(daily_report(connection, day=TODAY, days=days))

    assert [size(svg) for svg in plots.values()] == [(900, 830), (900, 860), (900, 260)]
    assert max(map(len, plots.values())) < SVG_BYTES_MAX
    assert all(b"not drawn: SGD, USD" in svg for svg in plots.values())


def test_the_page_is_one_file_that_needs_nothing(connection: Connection) -> None:
    """The pictures are inline with alternative text. Nothing is loaded from elsewhere."""
    a_fortnight(connection)
    report = daily_report(connection, day=TODAY)

    rendered = render_page(report, made_at=at(17, 6, 30))

    page = Page(rendered)
    assert [base64.b64decode(link.removeprefix("data:image/svg+xml;base64,")) for link in page.links] == list(
        draw(report).values()
    )
    assert page.alts == list(report.plot_titles.values())
    assert not {"script", "link", "iframe"} & set(page.tags)
    assert not re.search(r"url\(|@import", rendered)
    assert "Covers 2026-03-02 00:00 UTC to 2026-03-17 00:00 UTC. Made at 2026-03-17 06:30 UTC." in rendered
    for cell in ("214.00", "5.00", "+4,180.0 %", "284.00", "1,000", "0:25:00"):
        assert cell in page.texts


def test_page_escapes_its_texts(connection: Connection) -> None:
    """Markup in the books' texts is shown as text."""
    hostile = '<script>alert("1")</script>'
    report = replace(
        daily_report(connection, day=TODAY),
        figures=(Figure(name="refunds", currency=hostile, places=2, day=1, fortnight_mean=None, period=1),),
    )

    page = Page(render_page(report, made_at=at(17)))

    assert "script" not in page.tags
    assert hostile in page.texts
