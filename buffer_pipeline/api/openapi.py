"""The OpenAPI document, as it is served and as `openapi.json` has it."""

from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from buffer_pipeline.api.problems import MEDIA_TYPE

DESCRIPTION: Final = (
    "Every verb and every read of the payment buffer. Amounts are text in the currency's major unit, times"
    " are ISO 8601. A write needs an `Idempotency-Key`, under which its answer is kept for 30 days."
    " Every error is a problem (RFC 9457) that says what is wrong and what is allowed."
)

_PROBLEM: Final = {
    "type": "object",
    "title": "Problem",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string", "format": "uri"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
    },
    "additionalProperties": True,
}


def document_of_the_api(app: FastAPI) -> dict[str, Any]:
    """Return the document of all endpoints."""
    document = get_openapi(
        title=app.title,
        version=app.version,
        openapi_version="3.1.0",
        description=DESCRIPTION,
        routes=app.routes,
    )
    schemas = document["components"]["schemas"]
    schemas.pop("HTTPValidationError", None)
    schemas.pop("ValidationError", None)
    schemas["Problem"] = _PROBLEM
    document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    document["security"] = [{"key": []}]
    problem = {
        "description": "Refused: a problem.",
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
    for path in document["paths"].values():
        for operation in path.values():
            operation["responses"].pop("422", None)
            operation["responses"]["default"] = problem
    return document
