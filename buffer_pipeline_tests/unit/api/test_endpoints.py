"""Each endpoint does what its verb or read does, with the keys that docs/roles.md allows it."""

import re
from collections.abc import Iterator
from typing import Any, Final

import jsonschema
import pytest

from buffer_pipeline.api.keys import KeyRole
from buffer_pipeline.audit.reconcile import reconcile
from buffer_pipeline_tests.openapi import PAGE, document, text
from buffer_pipeline_tests.support.api import Api
from buffer_pipeline_tests.support.api_stories import STORIES, story_of
from buffer_pipeline_tests.support.paths import ROOT

DOCUMENT: Final = document()
OPERATIONS: Final = {
    operation["operationId"]: (method.upper(), path, operation)
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
}
NUMBERS: Final = {name: number for number, name in enumerate(OPERATIONS, 1)}


def documented() -> dict[str, set[str]]:
    """Return, for each `METHOD /path`, the roles whose keys docs/roles.md allows it."""
    page = (ROOT / "docs" / "roles.md").read_text(encoding="utf-8")
    lines = re.findall(r"^\| `((?:GET|POST|PUT) /\S+)` \|(.*)\|$", page, re.MULTILINE)
    return {
        endpoint: {
            role for role, cell in zip(KeyRole, cells.split("|"), strict=True) if cell.strip() == "yes"
        }
        for endpoint, cells in lines
    }


def test_openapi_is_the_committed_file(api: Api) -> None:
    """The file is what the server answers: `uv run python -m buffer_pipeline_tests.openapi` writes it."""
    assert PAGE.read_text(encoding="utf-8") == text()
    assert api.reader.get("/openapi.json").json() == DOCUMENT


def test_roles_page_has_every_endpoint() -> None:
    """docs/roles.md has one line for each endpoint, and none of another."""
    assert sorted(documented()) == sorted(f"{method} {path}" for method, path, _ in OPERATIONS.values())


def parts_of(name: str, api: Api) -> tuple[str, dict[str, Any], Any]:
    """Make what the example of an operation needs. Return its path, its query and its body."""
    _, path, operation = OPERATIONS[name]
    with api.engine.begin() as connection:
        story = story_of(connection, NUMBERS[name])
        parameters = STORIES[name](story)
        body = None
        if "requestBody" in operation:
            reference = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
            schema = DOCUMENT["components"]["schemas"][reference.rpartition("/")[2]]
            body = story.own(schema["examples"][0])
    in_path = {key: value for key, value in parameters.items() if f"{{{key}}}" in path}
    query = {key: value for key, value in parameters.items() if key not in in_path}
    return path.format(**in_path), query, body


@pytest.mark.parametrize("name", OPERATIONS)
def test_example_of_each_endpoint_runs_with_the_keys_of_its_roles(
    request: pytest.FixtureRequest, name: str
) -> None:
    """The first key that may do it gets an answer of the documented form; the keys that may not, get 403."""
    method, path, operation = OPERATIONS[name]
    # Real books refuse what is only for a sandbox.
    of_sandbox = path.startswith("/test_clock")
    api: Api = request.getfixturevalue("api_of_sandbox" if of_sandbox else "api")
    allowed = documented()[f"{method} {path}"]
    address, query, body = parts_of(name, api)

    answers = {}
    # Who may not comes first, while there is something to do.
    for role in sorted(KeyRole, key=lambda each: each in allowed):
        caller = api.callers[role]
        answers[role] = (
            caller.get(address, **query) if method == "GET" else caller.post(address, body, method=method)
        )

    refused = {role.value for role, answer in answers.items() if answer.status_code == 403}
    assert refused == {role.value for role in KeyRole} - allowed, {
        role: answer.text for role, answer in answers.items()
    }
    first = next(answer for role, answer in answers.items() if role in allowed)
    assert first.status_code == 200, first.text
    schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
    jsonschema.validate(first.json(), {**schema, "components": DOCUMENT["components"]})
    for name_of_role in refused:
        assert answers[KeyRole(name_of_role)].headers["content-type"] == "application/problem+json"


@pytest.fixture(scope="module", autouse=True)
def _books_are_sound(api: Api) -> Iterator[None]:
    """After all of them, the books are in balance."""
    yield
    with api.engine.connect() as connection:
        assert reconcile(connection) == []
