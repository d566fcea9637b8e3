"""Requests that schemathesis makes of the OpenAPI document: no 500, and only answers that it describes."""

from typing import Any, Final

import httpx
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from buffer_pipeline_tests.openapi import document
from buffer_pipeline_tests.support.api import Api
from buffer_pipeline_tests.support.scale import count

EXAMPLES: Final = count("API_EXAMPLES", part=4, whole=200)
"""Of each endpoint."""

CHECKS: Final = [
    not_a_server_error,
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
]

schema = schemathesis.openapi.from_dict(document())


@schema.parametrize()
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    database=None,
    derandomize=True,
)
def test_generated_requests_are_answered_as_documented(api: Api, case: Any) -> None:
    """Whatever is sent, the answer is a documented one or a problem."""
    # A platform's key may do most. Its key of the header is what is generated.
    caller = api.payouts if "payout-batches" in case.path else api.platform
    answer = case.call(base_url=api.url, headers={"Authorization": f"Bearer {caller.token}"}, timeout=60)

    case.validate_response(answer, checks=CHECKS)


def test_server_still_answers(api: Api) -> None:
    """After all of them."""
    assert httpx.get(f"{api.url}/readyz", timeout=60, trust_env=False).status_code == 200
