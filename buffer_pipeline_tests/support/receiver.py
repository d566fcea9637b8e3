"""An HTTP service that accepts Apprise alerts and records them."""

from pytest_httpserver import HTTPServer


class Receiver:
    """A service that accepts and records alerts."""

    def __init__(self, server: HTTPServer) -> None:
        self._server = server
        self.url = f"json://{server.host}:{server.port}/alerts"
        self.answers(200)

    def answers(self, status: int) -> None:
        """Answer with this status from now on."""
        self._server.clear_all_handlers()
        self._server.expect_request("/alerts", method="POST").respond_with_data("", status=status)

    @property
    def got(self) -> list[tuple[str, str]]:
        """Title and text of each message, whatever the answer was."""
        payloads = [request.get_json() for request, _ in self._server.log]
        return [(payload["title"], payload["message"]) for payload in payloads]
