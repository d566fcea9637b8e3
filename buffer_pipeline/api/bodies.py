"""Bodies of requests: JSON as it is meant, and the types of their fields."""

import json
import math
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, Final

from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from buffer_pipeline.api.problems import Problem
from buffer_pipeline.inputs import ID_MAX, parse_time

_DIGITS_MAX: Final = 400
"""Of an integer. Python refuses to read one of thousands, and would take long."""


def _time_of(value: object) -> object:
    if isinstance(value, datetime):
        return value
    if not isinstance(value, str):
        raise ValueError("needs text, such as 2026-11-18T23:35Z")  # noqa: TRY004 - pydantic expects it
    return parse_time("time", value)


_TIME_SCHEMA: Final = {"type": "string", "format": "date-time", "examples": ["2026-11-18T23:35:00Z"]}

Id = Annotated[int, Field(ge=1, le=ID_MAX)]
Time = Annotated[datetime, BeforeValidator(_time_of), WithJsonSchema(_TIME_SCHEMA)]
Amount = Annotated[
    str,
    WithJsonSchema(
        {"type": "string", "pattern": r"^[0-9]{1,30}(\.[0-9]{1,30})?$", "examples": ["1250.50"]},
    ),
]
"""Text, because a number of JSON is a float for many readers."""
Percent = Annotated[
    str, WithJsonSchema({"type": "string", "pattern": r"^[0-9]{1,3}(\.[0-9]{1,10})?$", "examples": ["12"]})
]
By = Annotated[str, Field(description="Who asks or decides; stored in the books.")]
Reason = Annotated[str, Field(description="The reason; stored in the books.")]
Reference = Annotated[
    str | None, Field(description="The books' own idempotency key, forever and for every way to call.")
]


class Filters(BaseModel):
    """The query of a read: no other names than these."""

    model_config = ConfigDict(extra="forbid")

    def facts(self) -> dict[str, Any]:
        """Return what the caller gave, as keyword arguments."""
        return {
            name: getattr(self, name) for name in type(self).model_fields if name in self.model_fields_set
        }


class Body(Filters):
    """The JSON object of a write: no other fields, and no value of another type."""

    model_config = ConfigDict(strict=True)


class StrictRequest(Request):
    """A request whose JSON has one meaning for every reader."""

    async def json(self) -> Any:
        """Return the body as Python's values.

        Raises:
            Problem: not JSON, or JSON that readers understand differently.
        """
        if not hasattr(self, "_json"):
            body = await self.body()
            # For the digest of a write's content.
            self.state.body = body
            self._json = parse_json(body)
        return self._json


class StrictRoute(APIRoute):
    """A route that reads its body by `StrictRequest`."""

    def get_route_handler(self) -> Callable[[Request], Any]:
        """Return the handler of the route."""
        handle = super().get_route_handler()

        async def strictly(request: Request) -> Response:
            answer: Response = await handle(StrictRequest(request.scope, request.receive))
            return answer

        return strictly


def parse_json(body: bytes) -> Any:
    """Return the value of a JSON text.

    Raises:
        Problem: not UTF-8 or not JSON; a key twice in an object, NaN or Infinity, a number that a reader
            would round to infinity, half a surrogate pair or a NUL in a text, or too many levels.
    """
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _refused(f"not UTF-8 at byte {error.start}") from None
    try:
        found = json.loads(
            text,
            object_pairs_hook=_object,
            parse_constant=_no_constant,
            parse_int=_int,
            parse_float=_float,
        )
        _require_texts(found)
    except json.JSONDecodeError as error:
        raise _refused(f"not JSON: {error.msg} at character {error.pos + 1}") from None
    except RecursionError:
        raise _refused("has too many levels") from None
    return found


def _refused(fact: str) -> Problem:
    return Problem(400, "bad-json", f"body: {fact}")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _refused(f"{twice[:60]!a} occurs twice in an object")
    return found


def _no_constant(name: str) -> Any:
    raise _refused(f"{name} is not JSON")


def _int(digits: str) -> int:
    if len(digits) > _DIGITS_MAX:
        raise _refused(f"an integer of {len(digits)} digits")
    return int(digits)


def _float(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise _refused("a number that is too large")
    return value


def _require_texts(value: Any) -> None:
    if isinstance(value, str):
        # Escapes can say what UTF-8 cannot, and what PostgreSQL cannot store.
        if "\x00" in value or any("\ud800" <= letter <= "\udfff" for letter in value):
            raise _refused("a text with a NUL or half a surrogate pair")
    elif isinstance(value, dict):
        for name, item in value.items():
            _require_texts(name)
            _require_texts(item)
    elif isinstance(value, list):
        for item in value:
            _require_texts(item)
