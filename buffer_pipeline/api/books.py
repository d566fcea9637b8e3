"""The transaction of a request: its key's role, its idempotency key, the verb, and the answer to keep."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any, Final, TypeVar

from sqlalchemy import URL, Connection, Engine
from sqlalchemy.exc import DBAPIError

from buffer_pipeline.api.documents import document_of, json_text
from buffer_pipeline.api.keys import API_ROLE, Key, find_key
from buffer_pipeline.api.problems import RETRY_AFTER_SECONDS, Problem, is_to_be_repeated, unavailable
from buffer_pipeline.currencies import places_of
from buffer_pipeline.database import confirm, database_clock, fetch, first_line, make_engine
from buffer_pipeline.errors import InvalidInput, Refused
from buffer_pipeline.hours import clock_of_a_writer
from buffer_pipeline.money import Places
from buffer_pipeline.settings import Settings

T = TypeVar("T")

ATTEMPTS: Final = 4
"""How often a transaction is tried that fails only because of another one, such as by a deadlock."""

_NO_SUCH_ROLE: Final = frozenset({"42501", "22023"})
"""The login is no member of the role, or there is no such role."""


@dataclass(frozen=True)
class Call:
    """What an endpoint works with: a connection in the key's role, the clock of the books, settings.

    `engine_of` returns an engine in another role, for work in transactions of its own.
    """

    connection: Connection
    clock: Callable[[], datetime]
    settings: Settings
    engine_of: Callable[[str], Engine]

    @property
    def now(self) -> datetime:
        """The time of the request. A read that does not ask for it saves a statement."""
        return self.clock()


@dataclass(frozen=True)
class Write:
    """A write as it was asked for. `content_digest` is of its method, its path and its body."""

    key: Key
    idempotency_key: str
    method: str
    path: str
    content_digest: bytes
    request_id: str


@dataclass(frozen=True)
class Answer:
    """The text of an answer. `replayed` if an earlier request with the same idempotency key got it first."""

    status: int
    text: str
    replayed: bool = False


class Books:
    """The books as the API uses them."""

    def __init__(self, url: URL | str, settings: Settings, *, connections: int) -> None:
        self._settings = settings
        self._url = url
        self._others: dict[str, Engine] = {}
        self._engine = make_engine(url, connections_kept=connections, role=API_ROLE)
        # An earlier request's answer must be seen even if it was committed after this transaction began.
        self._writing = self._engine.execution_options(isolation_level="READ COMMITTED")
        self._reading = self._engine.execution_options(
            isolation_level="REPEATABLE READ", postgresql_readonly=True
        )

    def close(self) -> None:
        """Close the connections."""
        for engine in (self._engine, *self._others.values()):
            engine.dispose()

    def find_key(self, token: str) -> Key | None:
        """Return the key of a request, before its body is read."""

        def found(connection: Connection) -> Key | None:
            return find_key(connection, token)

        return self._run(self._reading, found)

    def revision(self) -> str:
        """Return the revision of the books."""

        def found(connection: Connection) -> str:
            revision: str = fetch(connection, "database/revision")[0]["version_num"]
            return revision

        return self._run(self._reading, found)

    def read(self, key: Key, work: Callable[[Call], Any]) -> str:
        """Return the text of the answer to a read. It sees one snapshot, and can write nothing."""

        def do(connection: Connection) -> str:
            acting = fetch(
                connection,
                "api/act_as_key",
                api_key_id=key.api_key_id,
                database_role=key.database_role,
            )
            _require_key(acting)
            clock = cache(lambda: database_clock(connection))
            call = Call(connection, clock, self._settings, self._engine_of)
            return json_text(document_of(work(call), _places(connection)))

        return self._run(self._reading, do)

    def write(self, write: Write, work: Callable[[Call], Any]) -> Answer:
        """Do a write once, and return its answer; for a retry with the same content, the answer of the first.

        The answer is recorded in the transaction of the verb, so both are there or neither.

        Raises:
            Problem: another request with the same idempotency key has not ended, or had other content.
            Refused: by the verb. Nothing is written, and a retry is tried again.
        """
        try:
            return self._run(self._writing, lambda connection: self._write(connection, write, work))
        except InvalidInput:
            raise
        except Refused:
            # As on the command line: what caused the refusal is on the standby before it is reported.
            self._run(self._writing, confirm)
            raise

    def _write(self, connection: Connection, write: Write, work: Callable[[Call], Any]) -> Answer:
        named = {"api_key_id": write.key.api_key_id, "idempotency_key": write.idempotency_key}
        if not fetch(connection, "api/try_lock_request", **named)[0]["is_mine"]:
            raise Problem(
                409,
                "request-in-flight",
                f"Idempotency-Key {write.idempotency_key!r}: its first request has not ended;"
                " repeat it later",
                headers={"Retry-After": str(RETRY_AFTER_SECONDS)},
            )
        # A statement of its own, after the lock: it sees what the first request has committed.
        begun = fetch(connection, "api/begin_write", database_role=write.key.database_role, **named)
        _require_key(begun)
        if begun[0]["status"] is not None:
            if begun[0]["content_digest"] != write.content_digest:
                raise Problem(
                    422,
                    "idempotency-key-reused",
                    f"Idempotency-Key {write.idempotency_key!r}: was used for another request;"
                    " take a new one",
                )
            confirm(connection)
            return Answer(begun[0]["status"], begun[0]["answer"], replayed=True)
        now = clock_of_a_writer(connection)
        call = Call(connection, lambda: now, self._settings, self._engine_of)
        text = json_text(document_of(work(call), _places(connection)))
        fetch(connection, "api/act_as_api")
        fetch(
            connection,
            "api/record_answer",
            method=write.method,
            path=write.path,
            content_digest=write.content_digest,
            status=200,
            answer=text,
            request_id=write.request_id,
            **named,
        )
        return Answer(200, text)

    def _engine_of(self, role: str) -> Engine:
        """Return an engine whose transactions are in a role.

        Raises:
            Problem: this server's login is no member of the role.
        """
        if role not in self._others:
            self._others[role] = make_engine(self._url, connections_kept=1, role=role)
        engine = self._others[role]
        with _begun(engine, role):
            return engine

    def _run(self, engine: Engine, work: Callable[[Connection], T]) -> T:
        for left in range(ATTEMPTS - 1, -1, -1):
            try:
                with _begun(engine) as connection:
                    return work(connection)
            except DBAPIError as error:
                if not (left and is_to_be_repeated(error)):
                    raise
        raise AssertionError("the last attempt returns or raises")


@contextmanager
def _begun(engine: Engine, role: str = API_ROLE) -> Iterator[Connection]:
    """Yield a connection in a transaction, in the role of the engine."""
    with engine.connect() as connection:
        try:
            transaction = connection.begin()
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) in _NO_SUCH_ROLE:
                raise unavailable(
                    f"this server's login may not act as {role}: {first_line(error)}"
                ) from error
            raise
        with transaction:
            yield connection


def _places(connection: Connection) -> Callable[[], Places]:
    """Return a function that reads the places of the currencies once."""
    return cache(lambda: places_of(connection))


def _require_key(rows: Any) -> None:
    """Refuse a key that was revoked or expired since it was read."""
    if not rows:
        raise unauthorized("the key was revoked or has expired")


def unauthorized(detail: str) -> Problem:
    """Return the problem of a request without a key that may be used."""
    return Problem(
        401, "unauthorized", detail, headers={"WWW-Authenticate": 'Bearer realm="buffer-pipeline"'}
    )
