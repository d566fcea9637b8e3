"""Endpoints: a function of a verb or a read, its path, and the keys that it is for."""

import inspect
from collections.abc import Callable
from functools import partial
from hashlib import sha256
from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Request, Response
from pydantic import BaseModel

from buffer_pipeline.api.bodies import StrictRoute
from buffer_pipeline.api.books import Books, Write
from buffer_pipeline.api.documents import model_of, page_model
from buffer_pipeline.api.keys import Key, KeyRole
from buffer_pipeline.api.problems import Problem

Function = Callable[..., Any]

NOT_FOR_OPERATORS: Final = frozenset({KeyRole.OPERATOR})
"""An operator decides about money that is there, and brings none in and takes none out."""

IdempotencyKey = Annotated[
    str,
    Header(
        min_length=1,
        max_length=200,
        pattern=r"^[!-~]+$",
        description="Any text of your own for this request. Repeated with it, the request is done once.",
    ),
]
IfNoneMatch = Annotated[str | None, Header(description="The ETag of an earlier answer.")]


def router(tag: str) -> APIRouter:
    """Return a router whose routes read JSON strictly."""
    return APIRouter(tags=[tag], route_class=StrictRoute)


def read(
    to: APIRouter, path: str, *, answer: type, page: bool = False, etag: bool = False, summary: str = ""
) -> Callable[[Function], Function]:
    """Make an endpoint of a function that reads."""

    def added(function: Function) -> Function:
        def endpoint(request: Request, if_none_match: str | None = None, **given: Any) -> Response:
            _require_no_stray_query(request, given)
            books, key = _of(request)
            text = books.read(key, partial(function, **given))
            headers = {}
            if etag:
                headers["ETag"] = f'"{sha256(text.encode()).hexdigest()[:32]}"'
                if headers["ETag"] in _tags(if_none_match):
                    return Response(status_code=304, headers=headers)
            return Response(text, media_type="application/json", headers=headers)

        extra = [_parameter("if_none_match", IfNoneMatch, default=None)] if etag else []
        model = page_model(answer) if page else model_of(answer)
        _add(to, "GET", path, endpoint, function, extra, model, summary)
        return function

    return added


def write(
    to: APIRouter,
    path: str,
    *,
    answer: type,
    method: str = "POST",
    not_for: frozenset[KeyRole] = frozenset(),
    with_currency: bool = False,
) -> Callable[[Function], Function]:
    """Make an endpoint of a function that writes."""

    def added(function: Function) -> Function:
        def endpoint(request: Request, idempotency_key: str, **given: Any) -> Response:
            _require_no_stray_query(request, {})
            books, key = _of(request)
            if key.role in not_for:
                raise Problem(403, "permission-denied", f"a key of the role {key.role} may not do that")
            raw_path = request.url.path
            content = b"\0".join((request.method.encode(), raw_path.encode(), request.state.body))
            asked = Write(
                key=key,
                idempotency_key=idempotency_key,
                method=request.method,
                path=raw_path,
                content_digest=sha256(content).digest(),
                request_id=request.state.request_id,
            )
            done = books.write(asked, partial(function, **given))
            headers = {"Idempotency-Replayed": "true"} if done.replayed else {}
            return Response(done.text, done.status, media_type="application/json", headers=headers)

        extra = [_parameter("idempotency_key", IdempotencyKey)]
        _add(to, method, path, endpoint, function, extra, model_of(answer, with_currency=with_currency))
        return function

    return added


def _add(
    to: APIRouter,
    method: str,
    path: str,
    endpoint: Function,
    function: Function,
    extra: list[inspect.Parameter],
    model: type[BaseModel],
    summary: str = "",
) -> None:
    # FastAPI reads the parameters from the signature: those of the function, and those of the endpoint.
    own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]
    by_name = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in own]
    endpoint.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [_parameter("request", Request), *extra, *by_name]
    )
    endpoint.__name__ = function.__name__
    endpoint.__doc__ = function.__doc__
    words = (function.__doc__ or "").strip()
    to.add_api_route(
        path,
        endpoint,
        methods=[method],
        operation_id=function.__name__,
        summary=summary or words.splitlines()[0].rstrip("."),
        description=words,
        response_model=None,
        responses={200: {"model": model, "description": "Done."}},
    )


def _parameter(name: str, kind: Any, **default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=kind, **default)


def _of(request: Request) -> tuple[Books, Key]:
    return request.app.state.books, request.state.key


def _require_no_stray_query(request: Request, given: dict[str, Any]) -> None:
    """Refuse a query where none is read: a misspelled filter must not be ignored."""
    if request.url.query and "filters" not in given:
        raise Problem(422, "invalid-input", "query: this path takes none")


def _tags(if_none_match: str | None) -> list[str]:
    return [tag.strip().removeprefix("W/") for tag in (if_none_match or "").split(",")]
