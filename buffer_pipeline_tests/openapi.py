"""The OpenAPI document of the HTTP API, as it is committed.

    uv run python -m buffer_pipeline_tests.openapi    # writes openapi.json again, after a change of the API

A test compares it with what is served.
"""

import json
from typing import Any, Final

from buffer_pipeline.api.app import create_app
from buffer_pipeline.api.openapi import document_of_the_api
from buffer_pipeline.settings import Settings
from buffer_pipeline_tests.support.paths import ROOT

PAGE: Final = ROOT / "openapi.json"


def document() -> dict[str, Any]:
    """Return the document, without a database."""
    return document_of_the_api(create_app("postgresql://nobody@localhost/none", Settings()))


def text() -> str:
    """Return the text of the file."""
    return json.dumps(document(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    PAGE.write_text(text(), encoding="utf-8")
