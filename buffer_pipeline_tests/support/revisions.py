"""Books of an older revision, and the way back to it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from alembic import command
from alembic.config import Config
from sqlalchemy import Engine, text

from buffer_pipeline.database import make_engine, migrate
from buffer_pipeline.embedded import EmbeddedServer


@contextmanager
def books_of_revision(server: EmbeddedServer, revision: str) -> Iterator[Engine]:
    """Yield an engine on empty books of an older revision."""
    name = f"old_{os.urandom(6).hex()}"
    admin = make_engine(server.url("postgres", user="postgres")).execution_options(
        isolation_level="AUTOCOMMIT"
    )
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name} OWNER buffer"))
    engine = make_engine(server.url(name))
    migrate(engine, revision)
    yield engine
    engine.dispose()
    with admin.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    admin.dispose()


def downgrade(engine: Engine, revision: str) -> None:
    """Migrate the books down to a revision."""
    config = Config()
    config.set_main_option("script_location", "buffer_pipeline:migrations")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, revision)
