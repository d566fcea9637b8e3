"""Revision 0023 adds the released fees, taxes and reserves to hours that were counted before."""

from collections.abc import Iterator
from datetime import timedelta
from importlib import import_module
from typing import Final

import pandas as pd
import pytest
from sqlalchemy import Engine, text

from buffer_pipeline.database import make_engine, migrate
from buffer_pipeline.embedded import EmbeddedServer
from buffer_pipeline.hours import HOUR
from buffer_pipeline.reports.complete_hours import differing_counts
from buffer_pipeline.reports.hourly_counts import count_hours, counts_between
from buffer_pipeline_tests.support.builders import NOON, WITH_A_FEE, place_hold
from buffer_pipeline_tests.support.databases import fresh_books
from buffer_pipeline_tests.support.hour_counts import release_due
from buffer_pipeline_tests.support.revisions import downgrade

DUE: Final = NOON + timedelta(days=7)
RESERVED: Final = NOON + timedelta(days=90)
BEFORE: Final[str] = import_module("buffer_pipeline.migrations.versions.0023_counted_shares").down_revision


@pytest.fixture
def own_engine(server: EmbeddedServer) -> Iterator[Engine]:
    """An engine on separate books, which may be migrated."""
    with fresh_books(server) as url:
        engine = make_engine(url)
        yield engine
        engine.dispose()


def counted(engine: Engine) -> pd.DataFrame:
    """Return the stored counts of the two hours with releases."""
    with engine.connect() as connection:
        return pd.concat(counts_between(connection, start=hour, end=hour + HOUR) for hour in (DUE, RESERVED))


def test_counted_hours_get_the_figures_of_shares(own_engine: Engine) -> None:
    """After a downgrade and an upgrade, each hour has the figures that it had when it was counted."""
    with own_engine.begin() as connection:
        place_hold(connection, shares=WITH_A_FEE)
        place_hold(connection, shares=WITH_A_FEE, currency="JPY", amount="5000")
        place_hold(connection, job="job-9")
        release_due(connection, now=DUE)
        release_due(connection, now=RESERVED)
    for hour in (DUE, RESERVED):
        count_hours(
            own_engine, start=hour, end=hour + HOUR, counted_by="test", clock=lambda _: RESERVED + HOUR
        )
    before = counted(own_engine)

    downgrade(own_engine, BEFORE)
    with own_engine.connect() as connection:
        columns = connection.scalars(
            text("SELECT attname FROM pg_attribute WHERE attrelid = 'buffer.hourly_release_count'::regclass")
        ).all()
    migrate(own_engine)

    with own_engine.connect() as connection:
        differing = differing_counts(connection, start=NOON, end=RESERVED + HOUR)
    assert "released_fee_minor" not in columns
    pd.testing.assert_frame_equal(counted(own_engine), before)
    assert before["released_fee_minor"].tolist() == [600, 12_000, 0, 0]
    assert before["released_reserve_minor"].tolist() == [0, 0, 500, 10_000]
    assert differing == []


def test_hours_without_shares_get_zeros(own_engine: Engine) -> None:
    """Books without shares have zeros in the new columns."""
    with own_engine.begin() as connection:
        place_hold(connection)
        release_due(connection, now=DUE)
    count_hours(own_engine, start=DUE, end=DUE + HOUR, counted_by="test")
    downgrade(own_engine, BEFORE)

    migrate(own_engine)

    with own_engine.connect() as connection:
        stored = counts_between(connection, start=DUE, end=DUE + HOUR)
        differing = differing_counts(connection, start=DUE, end=DUE + HOUR)
    assert stored[["released_minor", "released_fee_minor", "released_reserve_minor"]].to_numpy().tolist() == [
        [100_000, 0, 0]
    ]
    assert differing == []


def test_an_hour_that_is_counted_wrong_stays_so(own_engine: Engine) -> None:
    """A release that was written into a counted hour has more fees than the hour has released."""
    with own_engine.begin() as connection:
        place_hold(connection, job="job-9")
        release_due(connection, now=DUE)
    count_hours(own_engine, start=DUE, end=DUE + HOUR, counted_by="test")
    with own_engine.begin() as connection:
        connection.execute(text("UPDATE buffer.hourly_release_count SET released_minor = 1"))
        place_hold(connection, shares=WITH_A_FEE)
        release_due(connection, now=DUE)

    downgrade(own_engine, BEFORE)
    migrate(own_engine)

    with own_engine.connect() as connection:
        differing = differing_counts(connection, start=DUE, end=DUE + HOUR)
    assert {row["figure"] for row in differing} >= {"released_minor", "released_fee_minor"}
