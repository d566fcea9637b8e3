"""Absurd metadata: it is kept exactly, or refused in a short line that names it."""

import json
from typing import Any, Final

from hypothesis import event, given
from hypothesis import strategies as st
from sqlalchemy import Engine

from buffer_pipeline.errors import InvalidInput
from buffer_pipeline.hold_metadata import metadata_text, parse_metadata
from buffer_pipeline.reports.holds import show_hold
from buffer_pipeline_tests.support.earnings import add, add_in_many
from buffer_pipeline_tests.support.hostile import cases, texts
from buffer_pipeline_tests.support.read_rows import all_holds

numbers: Final = st.one_of(
    st.integers(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from((2**63, 10**400, -0.0, 5e-324, 1e16, 1e22, 1e23, 9007199254740993.0)),
)
scalars: Final = st.one_of(texts, st.text(max_size=8), numbers, st.booleans(), st.none())
values: Final = st.one_of(
    scalars, scalars, scalars, st.lists(scalars, max_size=2), st.dictionaries(texts, scalars, max_size=2)
)
objects: Final = st.one_of(
    st.dictionaries(st.one_of(texts, st.text(min_size=1, max_size=41)), scalars, max_size=5),
    st.dictionaries(st.one_of(texts, st.text(min_size=1, max_size=41)), values, max_size=22),
    st.dictionaries(st.sampled_from(("order", "amount_minor", "currency", "'; --")), scalars, max_size=4),
)


@cases(1_000)
@given(metadata=objects)
def test_metadata_is_kept_exactly_or_refused(engine: Engine, metadata: dict[str, Any]) -> None:
    """Accepted metadata comes back unchanged from the database, added singly or in bulk."""
    try:
        metadata_text(metadata)
    except InvalidInput as refusal:
        event("refused")
        assert str(refusal).startswith("metadata")
        assert len(str(refusal)) < 300
        return

    event("kept")
    with engine.connect() as connection:
        for number, way in enumerate((add, add, add_in_many)):
            hold_id = way(connection, reference=f"r-{number}", metadata=metadata).hold_id
            assert show_hold(connection, hold_id=hold_id)["metadata"] == metadata
            assert way(connection, reference=f"r-{number}", metadata=metadata).replayed
        for key, value in metadata.items():
            if isinstance(value, str):
                assert len(all_holds(connection, metadata={key: value})) == 3
        connection.rollback()


@cases(2_000)
@given(
    json_text=st.one_of(
        texts,
        objects.map(json.dumps),
        st.lists(
            st.sampled_from(('{"a":', "[", "]", "}", '"', ",", "1", "1e9", "NaN", "\\u0000", "\\ud800")),
            max_size=9,
        ).map("".join),
        st.tuples(st.sampled_from(('{"a":', "[")), st.integers(1, 60_000)).map(
            lambda drawn: drawn[0] * drawn[1]
        ),
        st.tuples(st.sampled_from("+-"), st.integers(1, 6_000)).map(
            lambda drawn: f'{{"n":{drawn[0]}{"9" * drawn[1]}}}'
        ),
    )
)
def test_text_is_an_object_or_refused(json_text: str) -> None:
    """Any text gives an object or a refusal of one short line."""
    try:
        taken = metadata_text(parse_metadata(json_text))
    except InvalidInput as refusal:
        assert str(refusal).startswith("metadata")
        assert len(str(refusal)) < 300
        return

    assert (taken is None) == (parse_metadata(json_text) == {})
