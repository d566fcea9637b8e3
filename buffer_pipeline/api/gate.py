"""What every request passes first: its id, its key, its limits. Nothing of a body is read before."""

import json
import logging
import re
import time
from collections import OrderedDict
from secrets import token_hex
from typing import Any, Final

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from buffer_pipeline.api.books import Books, unauthorized
from buffer_pipeline.api.keys import Key, digest_of
from buffer_pipeline.api.problems import Problem, problem_of
from buffer_pipeline.logs import FACTS

OPEN_PATHS: Final = frozenset({"/livez", "/readyz", "/openapi.json"})
"""What anybody may ask for."""

BODY_BYTES_MAX: Final = 1024 * 1024
MANY_BYTES_MAX: Final = 10 * 1024 * 1024
MANY_PATH: Final = "/earnings/many"

KEY_KNOWN_SECONDS: Final = 10
"""How long a key that was found is not searched again before a body is read. The transaction of the request
checks it in any case.
"""
_KEYS_KNOWN_MAX: Final = 1000

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,100}")
_WRITES: Final = frozenset({"POST", "PUT"})

logger: Final = logging.getLogger(__name__)


class Gate:
    """Pure ASGI, so that a refusal needs no body, and a client that goes away cancels nothing."""

    def __init__(self, app: ASGIApp, *, books: Books) -> None:
        self._app = app
        self._books = books
        self._known: OrderedDict[bytes, tuple[float, Key]] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else token_hex(16)
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        state["body"] = b""
        began = time.monotonic()
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {
                    **message,
                    "headers": [*message.get("headers", ()), (b"x-request-id", request_id.encode())],
                }
            await send(message)

        try:
            if scope["path"] not in OPEN_PATHS:
                state["key"] = await self._key_of(headers)
                _require_sound(scope)
                _require_json(scope, headers)
            await self._app(scope, _limited(scope, headers, receive), send_with_id)
        except Exception as error:
            if status:
                raise
            await self._refuse(error, scope, receive, send_with_id)
        finally:
            key: Key | None = state.get("key")
            _log(scope, status, time.monotonic() - began, request_id, key)

    async def _refuse(self, error: Exception, scope: Scope, receive: Receive, send: Send) -> None:
        problem = problem_of(error)
        log_unexpected(error, problem, request_id=scope["state"]["request_id"])
        await problem.response()(scope, receive, send)

    async def _key_of(self, headers: Headers) -> Key:
        kind, _, token = headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer" or not token:
            raise unauthorized("needs a header `Authorization: Bearer` with a key")
        digest = digest_of(token)
        known = self._known.get(digest)
        if known is not None and known[0] > time.monotonic():
            return known[1]
        key = await run_in_threadpool(self._books.find_key, token)
        if key is None:
            raise unauthorized("no such key, or it was revoked or has expired")
        self._known[digest] = (time.monotonic() + KEY_KNOWN_SECONDS, key)
        if len(self._known) > _KEYS_KNOWN_MAX:
            self._known.popitem(last=False)
        return key


def log_unexpected(error: Exception, problem: Problem, *, request_id: str) -> None:
    """Log the error behind a 5xx, with its trace if it was not expected."""
    if problem.status >= 500:  # noqa: PLR2004 - an HTTP status
        trace = error if problem.status == 500 else None  # noqa: PLR2004
        logger.error("request %s: %s", request_id, problem.detail, exc_info=trace)


def _require_sound(scope: Scope) -> None:
    if "\x00" in scope["path"] or b"%00" in scope["query_string"]:
        raise Problem(400, "bad-request", "path or query: has a NUL")


def _require_json(scope: Scope, headers: Headers) -> None:
    if scope["method"] not in _WRITES:
        return
    kind, _, parameters = headers.get("content-type", "").partition(";")
    charset = parameters.strip().lower().removeprefix("charset=").strip('"')
    if kind.strip().lower() != "application/json" or charset not in {"", "utf-8"}:
        raise Problem(415, "unsupported-media-type", "Content-Type: needs application/json in UTF-8")
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise Problem(415, "unsupported-media-type", "Content-Encoding: needs a body that is not compressed")


def _limited(scope: Scope, headers: Headers, receive: Receive) -> Receive:
    """Return a `receive` that refuses a body above the limit, whether it says its length or not."""
    limit = MANY_BYTES_MAX if scope["path"] == MANY_PATH else BODY_BYTES_MAX
    too_large = HTTPException(413, f"body: more than {limit} bytes")
    announced = headers.get("content-length", "0")
    if not announced.isascii() or not announced.isdigit() or int(announced[:20]) > limit:
        raise too_large
    received = 0

    async def limited() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > limit:
            raise too_large
        return message

    return limited


def _log(scope: Scope, status: int, seconds: float, request_id: str, key: Key | None) -> None:
    facts: dict[str, Any] = {
        "event": "request",
        "method": scope["method"],
        "path": scope["path"],
        "status": status,
        "milliseconds": round(seconds * 1000, 1),
        "request_id": request_id,
        "key": None if key is None else key.name,
    }
    # The query may name people, so it is not logged. As JSON text, a path cannot begin a line of its own.
    logger.info(
        "%s %s %s, %.1f ms, request %s",
        scope["method"],
        json.dumps(scope["path"]),
        status or "no answer",
        seconds * 1000,
        request_id,
        extra={FACTS: facts},
    )
