"""Metadata of a hold: its limits, that it comes back unchanged, and replays."""

import re
from math import inf, nan
from types import MappingProxyType
from typing import Any, Final

import psycopg
import pytest
from sqlalchemy import Connection, text

from buffer_pipeline.errors import InvalidInput, ReferenceConflict
from buffer_pipeline.hold_metadata import metadata_text, parse_metadata, read_metadata, shown_metadata
from buffer_pipeline.intake import AddedHold, Earning, add_many_pending_earnings, add_pending_earnings
from buffer_pipeline.reports.holds import show_hold
from buffer_pipeline_tests.support.builders import NOON, books, row_counts
from buffer_pipeline_tests.support.earnings import EARNING, WAYS, Add, add, add_one
from buffer_pipeline_tests.support.read_rows import all_holds

FULL: Final = {f"{number:02}{'k' * 38}": "🚰" * 500 for number in range(20)}
"""The largest allowed metadata."""

KEPT: Final[list[dict[str, Any]]] = [
    {"order": "A-17"},
    {"text": "", "int": 17, "zero": 0, "float": 0.1, "yes": True, "no": False, "nothing": None},
    {"max": 2**63 - 1, "min": -(2**63)},
    {"small": 5e-324, "large": 1.7976931348623157e308, "1e23": 1e23, "digits": 1.2345678901234567e18},
    {"lines": "a\nb\r\n\tc", "escape": "\x1b[31m\x7f\x9b", "turned": "\u202egnp.exe", "quote": "'\"\\"},
    {"'); DROP TABLE buffer.hold; --": "'); DROP TABLE buffer.hold; --"},
    {
        "{{ amount }}": "{% raw %}{{ 7 * 7 }}",
        "%s": "%(reference)s :now $1",
        "${HOME}": "<script>=cmd|'/C'!A0",
    },
    {"NULL": "NULL", "null": "null", "{}": "{a,b}", "[]": "[1]", "\\u0041": "\\u0000"},
    {"clé 🔑": "Ünïcode 🚰", "amount_minor": 5, "currency": "XXX", "metadata": "metadata"},
    FULL,
]
"""Values that come back unchanged. Names of columns have no meaning as keys."""


# ---- limits


@pytest.mark.parametrize(
    ("metadata", "refusal"),
    [
        ("order", "metadata: needs an object such as {'order': 'A-17'}, got str"),
        (["order"], "metadata: needs an object such as {'order': 'A-17'}, got an array"),
        ({str(number): number for number in range(21)}, "metadata: 21 keys; at most 20"),
        ({17: "order"}, "metadata: a key needs text, got int"),
        ({"": "x"}, "metadata key: must not be empty"),
        ({" order": "x"}, "metadata key ' order': starts or ends with a space"),
        ({"a\nb": "x"}, "metadata key 'a\\nb': contains a control character"),
        ({"a\ud800b": "x"}, "metadata key 'a\\ud800b': contains a control character"),
        ({"k" * 41: "x"}, f"metadata key '{'k' * 40}'…: 41 characters long; at most 40"),
        ({"note": "x" * 501}, "metadata key 'note': 501 characters long; at most 500"),
        ({"note": "a\0b"}, "metadata key 'note': contains a NUL or half of a surrogate pair"),
        ({"note": "a\udc80"}, "metadata key 'note': contains a NUL or half of a surrogate pair"),
        ({"n": 2**63}, "metadata key 'n': an integer of more than 64 bits; at most 9223372036854775807"),
        ({"n": -(2**63) - 1}, "metadata key 'n': an integer of more than 64 bits"),
        ({"n": 10**5000}, "metadata key 'n': an integer of more than 64 bits"),
        ({"n": inf}, "metadata key 'n': inf is not a finite number"),
        ({"n": nan}, "metadata key 'n': nan is not a finite number"),
        ({"n": {"a": 1}}, "metadata key 'n': needs text, a number, a boolean or null, got an object"),
        ({"n": [1]}, "metadata key 'n': needs text, a number, a boolean or null, got an array"),
        ({"n": b"x"}, "metadata key 'n': needs text, a number, a boolean or null, got bytes"),
        ({"n": NOON}, "metadata key 'n': needs text, a number, a boolean or null, got datetime"),
    ],
)
def test_invalid_metadata_is_refused(connection: Connection, metadata: Any, refusal: str) -> None:
    """The refusal names the key and the limit, and nothing is written."""
    (outcome,) = add_many_pending_earnings(connection, [Earning(**EARNING, metadata=metadata)], now=NOON)

    with pytest.raises(InvalidInput, match=f"^{re.escape(refusal)}"):
        add(connection, metadata=metadata)
    assert isinstance(outcome, InvalidInput)
    assert str(outcome).startswith(refusal)
    assert set(row_counts(connection).values()) == {0}


@pytest.mark.parametrize(
    ("json_text", "refusal"),
    [
        ("", "metadata: not JSON: Expecting value"),
        ("order=A-17", "metadata: not JSON: Expecting value"),
        ('{"a": 1} x', "metadata: not JSON: Extra data"),
        ("{'a': 1}", "metadata: not JSON: Expecting property name"),
        ('"order"', "metadata: needs an object such as {'order': 'A-17'}, got str"),
        ("[1]", "metadata: needs an object such as {'order': 'A-17'}, got an array"),
        ("null", "metadata: needs an object such as {'order': 'A-17'}, got NoneType"),
        ('{"a": 1, "b": 2, "a": 1}', "metadata key 'a': occurs twice; at most once"),
        ('{"a": 1, "\\u0061": 2}', "metadata key 'a': occurs twice; at most once"),
        ('{"a":' * 50_000, "metadata: 250000 characters of JSON; at most 200000"),
        ('{"a":' * 30_000, "metadata: not a flat JSON object; it has too many levels"),
        (f'{{"a":{"[" * 100_000}', "metadata: not a flat JSON object; it has too many levels"),
    ],
)
def test_text_that_is_no_flat_object_is_refused(json_text: str, refusal: str) -> None:
    """Before anything is added."""
    with pytest.raises(InvalidInput, match=f"^{re.escape(refusal)}"):
        parse_metadata(json_text)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "9" * 19, "-" + "9" * 5_000])
def test_a_number_that_has_no_value_is_refused_by_its_key(number: str) -> None:
    """Python accepts more numbers than JSON and PostgreSQL."""
    with pytest.raises(InvalidInput, match=r"^metadata key 'order': "):
        metadata_text(parse_metadata(f'{{"order": {number}}}'))


# ---- storage


@WAYS
@pytest.mark.parametrize("metadata", KEPT)
def test_metadata_comes_back_unchanged(connection: Connection, add: Add, metadata: dict[str, Any]) -> None:
    """In every read, with and without existing wallets."""
    for reference in ("first", "second"):
        hold_id = add(connection, reference=reference, metadata=metadata).hold_id

        shown = show_hold(connection, hold_id=hold_id)["metadata"]

        assert shown == metadata
        assert {key: type(value) for key, value in shown.items()} == {
            key: type(value) for key, value in metadata.items()
        }
    assert [row["metadata"] for row in all_holds(connection)] == [metadata] * 2


@WAYS
@pytest.mark.parametrize("metadata", [None, {}, MappingProxyType({})])
def test_no_metadata_is_null_in_the_books(connection: Connection, add: Add, metadata: Any) -> None:
    """None and {} are stored as NULL and read as {}."""
    for reference in ("first", "second"):
        add(connection, reference=reference, metadata=metadata)

    assert connection.scalars(text("SELECT metadata IS NULL FROM buffer.hold")).all() == [True, True]
    assert [row["metadata"] for row in all_holds(connection)] == [{}, {}]


def test_a_platform_with_json_of_its_own_gets_the_same(database_url: str) -> None:
    """The verbs handle JSON text, whatever the caller's connection makes of jsonb."""
    url = database_url.replace("postgresql+psycopg://", "postgresql://")
    with psycopg.connect(url) as driver:
        psycopg.types.json.set_json_loads(lambda _data: "mine", driver)
        psycopg.types.json.set_json_dumps(lambda _value: "mine", driver)
        earning = {**EARNING, "metadata": {"order": 17}, "now": NOON}

        first = add_pending_earnings(driver, **earning)
        again = add_pending_earnings(driver, **earning)

        assert (again.hold_id, again.replayed) == (first.hold_id, True)


def test_metadata_is_shown_on_one_line() -> None:
    """Without control characters, and still the same JSON."""
    metadata = {"note": "a\nb\x1b[31m\x9b\u202e", "clé": "🚰 Ü"}

    shown = shown_metadata(metadata)

    assert shown.isprintable()
    assert "clé" in shown
    assert read_metadata(shown) == metadata


# ---- replays


@WAYS
def test_replay_repeats_metadata_or_omits_it(connection: Connection, add: Add) -> None:
    """It is compared only if given. Key order does not matter, and 1 equals 1.0."""
    first = add(connection, metadata={"order": "A-17", "lines": 1})
    before = books(connection)

    for metadata in (None, {"lines": 1, "order": "A-17"}, {"order": "A-17", "lines": 1.0}):
        again = add(connection, metadata=metadata)

        assert (again.hold_id, again.replayed) == (first.hold_id, True)
    assert books(connection) == before


@WAYS
@pytest.mark.parametrize(
    ("first", "second", "fact"),
    [
        ({"a": "17"}, {"a": 17}, 'metadata {"a": "17"}, not metadata {"a": 17}'),
        ({"a": 1}, {"a": True}, 'metadata {"a": 1}, not metadata {"a": true}'),
        ({"a": 1, "b": 2}, {"a": 1}, 'metadata {"b": 2}, not metadata {}'),
        ({"a": 1}, {"a": 1, "b": None}, 'metadata {}, not metadata {"b": null}'),
        ({"a": 1}, {}, 'metadata {"a": 1}, not metadata {}'),
        (None, {"a": 1}, 'metadata {}, not metadata {"a": 1}'),
    ],
)
def test_other_metadata_is_refused(
    connection: Connection, add: Add, first: Any, second: Any, fact: str
) -> None:
    """The refusal names the first differing key, and nothing is written."""
    hold_id = add(connection, metadata=first).hold_id
    before = books(connection)

    with pytest.raises(ReferenceConflict, match=re.escape(f"already used for hold {hold_id} with {fact}")):
        add(connection, metadata=second)

    assert books(connection) == before


def test_each_of_many_earnings_has_its_own_metadata(connection: Connection) -> None:
    """With a refused earning between them."""
    given = [{"order": "1"}, None, {"n": [1]}, {}, {"order": "5"}]
    earnings = [
        Earning(**{**EARNING, "reference": f"r-{number}"}, metadata=metadata)  # type: ignore[arg-type]
        for number, metadata in enumerate(given)
    ]

    outcomes = add_many_pending_earnings(connection, earnings, now=NOON)

    assert [isinstance(outcome, AddedHold) for outcome in outcomes] == [True, True, False, True, True]
    assert {row["reference"]: row["metadata"] for row in all_holds(connection)} == {
        "r-0": {"order": "1"},
        "r-1": {},
        "r-3": {},
        "r-4": {"order": "5"},
    }


# ---- the search


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({"order": "17"}, {"text", "number", "two"}),
        ({"order": "17.0"}, {"number", "two"}),
        ({"order": "A-17"}, {"letters"}),
        ({"order": "true"}, {"yes"}),
        ({"order": "null"}, {"nothing"}),
        ({"order": "0.5"}, {"half"}),
        ({"order": "5e-1"}, {"half"}),
        ({"order": ""}, {"empty"}),
        ({"order": '"17"'}, set()),
        ({"order": "{}"}, set()),
        ({"order": "NaN"}, set()),
        ({"order": "9" * 400}, set()),
        ({"17": "order"}, set()),
        ({"order": "17", "shop": "1"}, {"two"}),
        ({"order": "17", "shop": "2"}, set()),
        ({}, {"text", "number", "two", "letters", "yes", "nothing", "half", "empty", "none"}),
    ],
)
def test_search_finds_text_and_values_spelled_so(
    connection: Connection, wanted: dict[str, str], found: set[str]
) -> None:
    """Every key must match. A value matches as text, or as the number, boolean or null that it spells."""
    for reference, metadata in {
        "text": {"order": "17"},
        "number": {"order": 17},
        "two": {"order": 17, "shop": "1"},
        "letters": {"order": "A-17"},
        "yes": {"order": True},
        "nothing": {"order": None},
        "half": {"order": 0.5},
        "empty": {"order": ""},
        "none": None,
    }.items():
        add_one(connection, reference=reference, metadata=metadata)

    assert {row["reference"] for row in all_holds(connection, metadata=wanted)} == found


@pytest.mark.parametrize(
    "wanted", [{"k" * 41: "x"}, {"": "x"}, {"a": "x" * 501}, {"a": "\0"}, {"a": "\ud800"}]
)
def test_impossible_search_is_refused(connection: Connection, wanted: dict[str, str]) -> None:
    """It could find nothing, so it is a mistake."""
    with pytest.raises(InvalidInput, match=r"^metadata key"):
        all_holds(connection, metadata=wanted)
