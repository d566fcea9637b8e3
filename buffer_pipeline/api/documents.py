"""Answers: dataclasses as JSON documents, with amounts as text, and the models that OpenAPI has of them."""

import json
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from types import NoneType
from typing import Annotated, Any, Final, TypeAlias, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, WithJsonSchema, create_model

from buffer_pipeline.money import Places, format_amount
from buffer_pipeline.rules.rule import percent_text

_MINOR: Final = "_minor"
_LEFT_OUT: Final = frozenset({"places", "position"})
"""Fields that are needed inside only: the places of an amount, and where a release run goes on."""

AmountText: TypeAlias = Annotated[
    str, WithJsonSchema({"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]+)?$", "examples": ["1250.50"]})
]
TimeText: TypeAlias = Annotated[str, WithJsonSchema({"type": "string", "format": "date-time"})]


@dataclass(frozen=True)
class InCurrency:
    """A result whose amounts are in a currency that it does not name itself."""

    result: Any
    currency: str


def document_of(result: Any, places: Callable[[], Places]) -> Any:
    """Return a result as a value for JSON. `places` reads those of the currencies, if needed."""
    return _value(result, places, None)


def json_text(document: Any) -> str:
    """Return the text of an answer."""
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"))


def time_text(moment: datetime) -> str:
    """Return a time in UTC, such as 2026-11-18T23:35:00Z."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _value(value: Any, places: Callable[[], Places], currency: str | None) -> Any:
    for kinds, shown in _SHOWN:
        if isinstance(value, kinds):
            return shown(value)
    if isinstance(value, InCurrency):
        return {**_value(value.result, places, value.currency), "currency": value.currency}
    if isinstance(value, list | tuple):
        return [_value(item, places, currency) for item in value]
    if isinstance(value, Mapping):
        return _row(value, places, currency)
    assert is_dataclass(value), type(value)
    return _row({each.name: getattr(value, each.name) for each in fields(value)}, places, currency)


def _row(row: Mapping[str, Any], places: Callable[[], Places], currency: str | None) -> dict[str, Any]:
    own = row.get("currency", currency)
    own_places: int | None = row.get("places")
    shown: dict[str, Any] = {}
    for name, value in row.items():
        if name in _LEFT_OUT:
            continue
        if name == "metadata":
            shown[name] = dict(value)
        elif not name.endswith(_MINOR):
            shown[name] = _value(value, places, own)
        elif isinstance(value, Mapping):
            shown[name.removesuffix(_MINOR)] = {
                code: format_amount(int(minor), places()[code]) for code, minor in sorted(value.items())
            }
        elif value is None:
            shown[name.removesuffix(_MINOR)] = None
        else:
            of_row = own_places if own_places is not None else places()[own or ""]
            shown[name.removesuffix(_MINOR)] = format_amount(int(value), of_row)
    return shown


_SHOWN: Final[tuple[tuple[Any, Callable[[Any], Any]], ...]] = (
    (NoneType | bool | int | float, lambda value: value),
    (str, str),
    (datetime, time_text),
    (Decimal, percent_text),
    (bytes, bytes.hex),
)
"""How values are shown that have no others in them."""


@cache
def model_of(answer: type[Any], *, with_currency: bool = False) -> type[BaseModel]:
    """Return the model of what `document_of` makes of a dataclass, for OpenAPI."""
    if issubclass(answer, BaseModel):
        return answer
    hints = get_type_hints(answer)
    shown: dict[str, Any] = {}
    for each in fields(answer):
        if each.name in _LEFT_OUT:
            continue
        name = each.name.removesuffix(_MINOR)
        shown[name] = (_type_of(hints[each.name], is_amount=name != each.name), ...)
    if with_currency:
        shown["currency"] = (str, ...)
    return create_model(
        answer.__name__, __config__=ConfigDict(extra="forbid", title=answer.__name__), **shown
    )


@cache
def page_model(item: type[Any]) -> type[BaseModel]:
    """Return the model of a page of a list."""
    return create_model(
        f"{item.__name__}Page",
        __config__=ConfigDict(extra="forbid"),
        items=(_list_of(_type_of(item)), ...),
        next_cursor=(str | None, ...),
    )


def _list_of(item: Any) -> Any:
    return list[item]


def _type_of(hint: Any, *, is_amount: bool = False) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in {Union, types.UnionType}:
        found = [_type_of(argument, is_amount=is_amount) for argument in arguments]
        return Union[tuple(found)]  # noqa: UP007 - made here
    if origin is tuple:
        return _list_of(_type_of(arguments[0]))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return dict[str, AmountText if is_amount else _type_of(arguments[1])]  # type: ignore[misc]
    if is_amount:
        return hint if hint is NoneType else AmountText
    if is_dataclass(hint):
        return model_of(hint)  # type: ignore[arg-type]
    return {datetime: TimeText, Decimal: str, bytes: str}.get(hint, hint)
