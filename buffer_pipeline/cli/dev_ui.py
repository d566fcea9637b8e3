"""The Dagster UI of `dev`: its port, its GraphQL, and whether it is ready."""

import json
import socket
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any, Final

from buffer_pipeline.errors import PaymentBufferError

HOST: Final = "127.0.0.1"

UI_ANSWER_SECONDS_MAX: Final = 120
"""The limit for the answer to a launch, which must not be sent twice: it could launch two runs."""

_PROBE_SECONDS_MAX: Final = 5

_LOCATIONS: Final = """{workspaceOrError {... on Workspace {locationEntries {
  loadStatus locationOrLoadError {__typename}}}}}"""


class NoAnswer(Exception):
    """The webserver has accepted a question and does not answer in time."""


def require_free_port(port: int) -> None:
    """Check that the webserver can listen on the port.

    Raises:
        PaymentBufferError: the port is in use, or may not be used.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # The webserver binds with the same option: connections that are closing do not block the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise PaymentBufferError(f"port {port}: {reason}; choose another with --port") from None


def webserver_answers(ui: str) -> bool:
    """Return whether the webserver at the URL `ui` answers."""
    try:
        with urllib.request.urlopen(f"{ui}/server_info", timeout=_PROBE_SECONDS_MAX):  # noqa: S310 - our own webserver
            return True
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


def definitions_are_loaded(ui: str) -> bool:
    """Return whether the UI has loaded the definitions. The webserver answers before it has."""
    try:
        answer = ask(ui, _LOCATIONS, {}, seconds_max=_PROBE_SECONDS_MAX)
    except NoAnswer:
        return False
    entries = answer.get("workspaceOrError", {}).get("locationEntries", [])
    return bool(entries) and all(
        entry["loadStatus"] == "LOADED"
        and (entry["locationOrLoadError"] or {}).get("__typename") == "RepositoryLocation"
        for entry in entries
    )


def ask(
    ui: str, query: str, variables: Mapping[str, object], *, seconds_max: float = UI_ANSWER_SECONDS_MAX
) -> dict[str, Any]:
    """Send a GraphQL query to the UI, and return its data; an empty dict if the webserver is not there.

    Raises:
        NoAnswer: the webserver has accepted the query and does not answer in time.
    """
    request = urllib.request.Request(  # noqa: S310 - our own webserver
        f"{ui}/graphql",
        data=json.dumps({"query": query, "variables": variables}).encode(),
        headers={"content-type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=seconds_max) as answer:  # noqa: S310
            data: dict[str, Any] = json.load(answer).get("data") or {}
            return data
    except TimeoutError:
        raise NoAnswer("the webserver does not answer") from None
    except (urllib.error.URLError, ConnectionError, json.JSONDecodeError):
        return {}
