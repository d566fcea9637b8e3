"""The books as a Dagster resource."""

from collections.abc import Iterator
from dataclasses import dataclass

import dagster as dg
from sqlalchemy import Engine

from buffer_pipeline.database import open_database
from buffer_pipeline.policy import Policy
from buffer_pipeline.settings import load_settings


@dataclass(frozen=True, kw_only=True)
class Books:
    """An engine on the books and the marketplace's figures for the rules."""

    engine: Engine
    policy: Policy


@dg.resource(
    description="The books that the BUFFER_… variables name; the embedded server when they name none."
)
def books_from_environment(_context: dg.InitResourceContext) -> Iterator[Books]:
    """Open the books for as long as a run or a tick needs them.

    The environment is read then, so that loading the definitions needs no database.
    """
    settings = load_settings()
    with open_database(settings) as engine:
        yield Books(engine=engine, policy=settings.policy)
