"""Errors as problem+json (RFC 9457), with the text that the command line prints and the facts in it."""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from http import HTTPStatus
from typing import Any, Final

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as NoConnectionLeft
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from buffer_pipeline.errors import (
    BooksOutOfBalance,
    InvalidInput,
    NotAllowed,
    NotFound,
    PaymentBufferError,
    Refused,
)
from buffer_pipeline.extras import MissingExtra

MEDIA_TYPE: Final = "application/problem+json"
URN: Final = "urn:buffer-pipeline:problem:"
RETRY_AFTER_SECONDS: Final = 1

_STATUSES: Final[Sequence[tuple[type[PaymentBufferError], int]]] = (
    (
        InvalidInput,
        HTTPStatus.UNPROCESSABLE_CONTENT
        if hasattr(HTTPStatus, "UNPROCESSABLE_CONTENT")
        else HTTPStatus.UNPROCESSABLE_ENTITY,
    ),
    (NotFound, 404),
    (NotAllowed, 403),
    # The request is good, and the state of the books does not allow it.
    (Refused, 409),
    (MissingExtra, 501),
)
"""The first class that an error is of decides."""

_PERMISSION_DENIED: Final = "42501"
_NO_BOOKS: Final = frozenset({"42P01", "3F000"})
"""No such table, no such schema."""
_AGAIN: Final = frozenset({"40001", "40P01", "55P03"})
"""Serialization failure, deadlock, lock not available: nothing is wrong with the request."""
_NOT_NOW: Final = ("08", "53", "57", "25006")
"""Beginnings of SQLSTATEs: no connection, no resources, shut down or cancelled, read-only."""


class Problem(Exception):
    """An error of a request that is none of the verbs': its status, a short name, and a sentence."""

    def __init__(
        self, status: int, name: str, detail: str, *, headers: Mapping[str, str] | None = None, **facts: Any
    ) -> None:
        self.status = int(status)
        self.name = name
        self.detail = detail
        self.headers = dict(headers or {})
        self.facts = facts
        super().__init__(detail)

    def document(self) -> dict[str, Any]:
        """Return the body of the answer."""
        return {
            "type": URN + self.name,
            "title": self.name.replace("-", " ").capitalize(),
            "status": self.status,
            "detail": self.detail,
            **self.facts,
        }

    def response(self) -> JSONResponse:
        """Return the answer."""
        return JSONResponse(self.document(), self.status, self.headers, media_type=MEDIA_TYPE)


def problem_of(error: Exception) -> Problem:
    """Return the problem of any error. An unexpected one says nothing of itself."""
    match error:
        case Problem():
            found = error
        case BooksOutOfBalance():
            found = Problem(500, "books-out-of-balance", "the books are wrong; nothing was written")
        case Refused() | MissingExtra():
            status = next(status for kind, status in _STATUSES if isinstance(error, kind))
            found = Problem(status, _kebab(type(error).__name__), str(error), **facts_of(error))
        case HTTPException():
            found = _of_the_framework(error)
        case NoConnectionLeft():
            found = unavailable("all connections to the database are in use")
        case DBAPIError():
            found = _of_the_database(error)
        case _:
            found = _unexpected()
    return found


def unavailable(detail: str) -> Problem:
    """Return the problem of a request that may succeed when it is repeated, with the same idempotency key."""
    return Problem(503, "unavailable", detail, headers={"Retry-After": str(RETRY_AFTER_SECONDS)})


def is_to_be_repeated(error: Exception) -> bool:
    """Return True if the transaction failed only because of another one."""
    return isinstance(error, DBAPIError) and _sqlstate(error) in _AGAIN


def facts_of(error: Exception) -> dict[str, Any]:
    """Return the attributes of a refusal that say something, such as `hold_id`."""
    return {
        name: value.isoformat() if isinstance(value, datetime) else value
        for name, value in vars(error).items()
        if isinstance(value, str | int | tuple | datetime) and value != () and not name.startswith("_")
    }


def of_validation(errors: Sequence[Any]) -> Problem:
    """Return the problem of a request that does not have the form that OpenAPI says."""
    found = [
        {
            "field": ".".join(map(str, error["loc"])),
            "message": str(error["msg"]).removeprefix("Value error, "),
        }
        for error in errors
    ]
    first = found[0]
    more = f"; and {len(found) - 1} more" if len(found) > 1 else ""
    return Problem(422, "invalid-input", f"{first['field']}: {first['message']}{more}", errors=found[:20])


def _of_the_framework(error: HTTPException) -> Problem:
    name = {404: "no-such-path", 413: "body-too-large"}.get(error.status_code) or HTTPStatus(
        error.status_code
    ).phrase.lower().replace(" ", "-")
    detail = {
        404: "there is no such path; /openapi.json lists them",
        405: "this path does not have that method; /openapi.json lists them",
        413: str(error.detail),
    }.get(error.status_code, name.replace("-", " "))
    return Problem(error.status_code, name, detail, headers=error.headers)


def _of_the_database(error: DBAPIError) -> Problem:
    state = _sqlstate(error)
    if state == _PERMISSION_DENIED:
        return Problem(403, "permission-denied", "the role of this key may not do that; nothing was written")
    if state in _NO_BOOKS:
        return unavailable("the books are not there; they may be migrated just now")
    if state in _AGAIN:
        return unavailable("other transactions kept this one from ending; repeat the request")
    if state is None and isinstance(error, OperationalError | InterfaceError):
        return unavailable("the database does not answer; repeat the request")
    if state is not None and state.startswith(_NOT_NOW):
        return unavailable("the database cannot do that now; repeat the request")
    return _unexpected()


def _unexpected() -> Problem:
    return Problem(500, "internal-error", "an unexpected error; the log has it, by the request's id")


def _sqlstate(error: DBAPIError) -> str | None:
    return getattr(error.orig, "sqlstate", None)


def _kebab(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "-", name).lower()
