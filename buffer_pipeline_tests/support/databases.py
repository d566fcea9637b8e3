"""Fresh books on a server, with an engine for each role."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from sqlalchemy import URL, Engine, text

from buffer_pipeline.database import make_engine
from buffer_pipeline.embedded import EmbeddedServer

BOOKS_NUMBER: Final = 48210397
"""The number that all books of the tests have in the ids of bank files; a migration takes a random one."""


def number_books(url: URL) -> None:
    """Give books their number, as a superuser: nobody else can."""
    admin = make_engine(url.set(username="postgres"))
    with admin.begin() as connection:
        connection.execute(text("ALTER TABLE buffer.payout_ids DISABLE TRIGGER USER"))
        connection.execute(text("UPDATE buffer.payout_ids SET books_number = :it"), {"it": BOOKS_NUMBER})
        connection.execute(text("ALTER TABLE buffer.payout_ids ENABLE TRIGGER USER"))
    admin.dispose()


@contextmanager
def fresh_books(server: EmbeddedServer, template: str = "buffer") -> Iterator[str]:
    """Yield the URL of a copy of the server's migrated books, or of other ones. It is dropped at the end."""
    name = f"books_{os.urandom(6).hex()}"
    admin = make_engine(server.url("postgres", user="postgres")).execution_options(
        isolation_level="AUTOCOMMIT"
    )
    with admin.connect() as connection:
        # Copying the files takes half the time of writing them through the log.
        connection.execute(
            text(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY OWNER buffer")
        )
    yield server.url(name).render_as_string(hide_password=False)
    with admin.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    admin.dispose()


ROLES: Final = ("platform", "releaser", "reader", "payouts", "api")
"""The roles of docs/roles.md besides the owner, without their common prefix."""


@dataclass
class Books:
    """Fresh books, and an engine for each role and for the owner."""

    owner: Engine
    platform: Engine
    releaser: Engine
    reader: Engine
    payouts: Engine
    api: Engine | None = None
    """None where nobody has such a login, as in Compose."""

    def of(self, role: str) -> Engine:
        """Return the role's engine."""
        engine: Engine = getattr(self, role)
        return engine
