"""How long books with many holds are migrated from before shares and rules: revision 0015 to the newest.

Half of the holds are settled, half wait. The migration is one transaction and locks the tables that it
changes until it commits: nobody else writes meanwhile. The books are filled at the newest revision, taken
down to 0015, and then migrated as `buffer-pipeline migrate` does it.
"""

import time
from typing import Final

from alembic import command
from alembic.config import Config

from benchmarks.figure import Figure
from benchmarks.fill import Shape, fill
from benchmarks.server import BenchmarkServer
from buffer_pipeline.audit.reconcile import reconcile
from buffer_pipeline.database import migrate

BEFORE: Final = "0015"


def measure(server: BenchmarkServer, *, holds: int = 1_000_000) -> list[Figure]:
    """Measure the way up, and the way down as a yardstick."""
    with server.books() as books:
        fill(server, books, Shape(due=0, wallets=100_000, settled=holds // 2, waiting=holds // 2))
        engine = server.engine(books)
        config = Config()
        config.set_main_option("script_location", "buffer_pipeline:migrations")
        began = time.perf_counter()
        with engine.begin() as connection:
            config.attributes["connection"] = connection
            command.downgrade(config, BEFORE)
        down_seconds = time.perf_counter() - began
        began = time.perf_counter()
        migrate(engine)
        up_seconds = time.perf_counter() - began
        with engine.connect() as connection:
            assert reconcile(connection) == []
        engine.dispose()
    return [
        Figure(
            benchmark="migration",
            name=f"{holds:,} holds from revision {BEFORE} to the newest",
            value=up_seconds,
            unit="s",
            yardstick="and down again",
            yardstick_value=down_seconds,
            ratio=up_seconds / down_seconds,
            goal="no goal",
            met=None,
        )
    ]
