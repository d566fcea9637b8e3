"""A logged-in browser on the UI's own page and on a page of another site."""

from dataclasses import dataclass
from typing import Final
from urllib.parse import urlencode

from playwright.sync_api import sync_playwright

from buffer_pipeline_tests.support.browser import CHROMIUM_ARGUMENTS, chromium
from buffer_pipeline_tests.support.stack import Seat


@dataclass(frozen=True)
class Browsed:
    """The UI's answers, as method and status, and the websockets that were opened."""

    own: list[tuple[str, int]]
    """To the UI's own page."""
    foreign: list[tuple[str, int]]
    """To the other site's page."""
    foreign_sockets: list[str]
    """"open" or "refused" for each websocket of the other site's page."""


def browse(seat: Seat, *, elsewhere: str, query: str) -> Browsed:
    """Open the UI's runs, then the page `elsewhere`, which sends `query` to the UI by GET and by POST."""
    name, password = seat.login.split(":")
    base = f"http://{seat.address}"
    query_url = f"{base}/graphql?{urlencode({'query': query})}"
    executable = chromium()
    answers: list[tuple[str, str, int]] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=CHROMIUM_ARGUMENTS)
        page = browser.new_page(http_credentials={"username": name, "password": password})
        page.on("response", lambda answer: answers.append((answer.url, answer.request.method, answer.status)))

        page.goto(f"{base}/runs")
        page.get_by_text("release_pending_payments").first.wait_for()
        page.goto(elsewhere)
        sockets = [page.evaluate(ASK, [query_url, method]) for method in ("GET", "POST")]
        browser.close()

    # An answer to its own page may be slow.
    own = [(method, code) for url, method, code in answers if url.startswith(base) and url != query_url]
    foreign = [(method, code) for url, method, code in answers if url == query_url]
    return Browsed(own, foreign, sockets)


# Requests that a page can have a browser send to another site, with that site's password.
ASK: Final = """async ([url, method]) => {
    await fetch(url, {method, mode: "no-cors", credentials: "include"});
    return await new Promise(end => {
        const socket = new WebSocket(url.replace("http:", "ws:").split("?")[0], "graphql-ws");
        socket.onopen = () => end("open");
        socket.onerror = () => end("refused");
    });
}"""
