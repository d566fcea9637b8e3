"""The UI in a real browser, on the stack that `dev` starts. Screenshots go to `artifacts/`."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import Final
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Error, Locator, Page, expect, sync_playwright
from sqlalchemy import Engine, func, select
from tenacity import Retrying, retry_if_exception_type, stop_after_delay

from buffer_pipeline.cli.first_look import LAUNCHPAD
from buffer_pipeline.database import database_clock, make_engine
from buffer_pipeline.embedded import embedded_server
from buffer_pipeline.hold import HoldState
from buffer_pipeline.orchestration.definitions import defs
from buffer_pipeline.orchestration.metadata import amounts_text
from buffer_pipeline.orchestration.payout_batches import daily_payouts
from buffer_pipeline.tables import batch, counted_hour, hourly_release_count, transaction
from buffer_pipeline_tests.support.browser import CHROMIUM_ARGUMENTS, chromium
from buffer_pipeline_tests.support.builders import place_hold, state_of, wallet_of
from buffer_pipeline_tests.support.paths import ROOT
from buffer_pipeline_tests.support.stack import (
    WAIT_SECONDS_MAX,
    ask,
    first_runs,
    free_port,
    hourly_release_stopped,
    lines_until_ui,
    serving,
)

ARTIFACTS: Final = ROOT / "artifacts"
PATIENCE_MS: Final = 60_000
DIALOG: Final = "[role=dialog][aria-modal=true]"
"""Excludes menus, which are dialogs too."""
BACKFILL_PATIENCE_MS: Final = 180_000
"""The daemon checks backfills twice a minute: once to begin and once to see the end."""


@dataclass(frozen=True, kw_only=True)
class Stack:
    """The URL of `dev`'s UI, and an engine on its books."""

    port: int
    engine: Engine


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium."""
    path = chromium()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=CHROMIUM_ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def stack(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The stack on sample data, started once for this file."""
    del browser  # Without a browser, do not start the stack.
    home, port = tmp_path_factory.mktemp("browser") / "home", free_port()
    with serving(home, port) as process:
        lines_until_ui(process)
        # The first runs have ended, so each test sees only its own.
        first_runs(process)
        with embedded_server(home) as server:
            engine = make_engine(server.books_url)
            yield Stack(port=port, engine=engine)
            engine.dispose()
        process.terminate()
        process.wait(timeout=WAIT_SECONDS_MAX)


@pytest.fixture
def page(browser: Browser, stack: Stack, request: pytest.FixtureRequest) -> Iterator[Page]:
    """A fresh page. Its last state is kept as a screenshot, also after a failure."""
    context = browser.new_context(
        base_url=f"http://127.0.0.1:{stack.port}",
        viewport={"width": 1600, "height": 1000},
        locale="en-GB",
        timezone_id="UTC",
    )
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    yield page
    picture(page, f"last_of_{request.node.name}")
    context.close()


@pytest.fixture(autouse=True, scope="module")
def _patience() -> Iterator[None]:
    expect.set_options(timeout=PATIENCE_MS)
    yield
    expect.set_options(timeout=None)


def picture(page: Page, name: str) -> None:
    """Take a screenshot of the page."""
    ARTIFACTS.mkdir(exist_ok=True)
    page.screenshot(path=ARTIFACTS / f"{name}.png")


def test_without_a_browser_the_tests_are_skipped_or_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are skipped with the reason, or fail if REQUIRE_BROWSER is set."""
    monkeypatch.setenv("PATH", "")

    monkeypatch.delenv("REQUIRE_BROWSER", raising=False)
    with pytest.raises(pytest.skip.Exception, match="chromium"):
        chromium()
    monkeypatch.setenv("REQUIRE_BROWSER", "1")
    with pytest.raises(pytest.fail.Exception, match="chromium"):
        chromium()


def test_the_schedules_and_sensors_are_on(page: Page) -> None:
    """After a start, every schedule and sensor is listed and switched on, but not what moves money out."""
    repository = defs.get_repository_def()
    paths = [
        *(f"/schedules/{schedule.name}" for schedule in repository.schedule_defs),
        *(f"/sensors/{sensor.name}" for sensor in repository.sensor_defs),
    ]

    page.goto("/automation")

    for path in paths:
        row = page.locator("[data-index]").filter(has=page.locator(f"a[href$='{path}']"))
        # The first checkbox selects the row.
        switch = expect(row.get_by_role("checkbox").last)
        if path == f"/schedules/{daily_payouts.name}":
            switch.not_to_be_checked()
        else:
            switch.to_be_checked()
    picture(page, "automation")


def bring_into_view(row: Locator) -> None:
    """Scroll to a row of a log. The page draws only the rows near the view, each again while it scrolls."""
    for attempt in Retrying(
        retry=retry_if_exception_type(Error), stop=stop_after_delay(PATIENCE_MS / 1000), reraise=True
    ):
        with attempt:
            row.scroll_into_view_if_needed(timeout=1000)
    expect(row).to_be_in_viewport()


def test_run_page_of_a_release_shows_counts_and_amounts(page: Page, stack: Stack) -> None:
    """Launched in the UI, the run succeeds. Its page shows the figures without a click."""
    with hourly_release_stopped(stack.port):
        with stack.engine.begin() as connection:
            held_at = database_clock(connection) - timedelta(days=8)
            hold_id = place_hold(
                connection, job="job-170", payee="worker-170", amount="1250.50", held_at=held_at
            )

        page.goto("/locations/buffer_pipeline/jobs/release_pending_payments/playground")
        page.get_by_role("button", name="Launch Run").click()
        page.wait_for_url(re.compile(r"/runs/[0-9a-f-]{36}"))
        expect(page.get_by_text("Success", exact=True)).to_be_visible()

    run_id = urlsplit(page.url).path.rpartition("/")[2]
    with stack.engine.connect() as connection:
        released = connection.execute(
            select(transaction.c.currency, func.count(), func.sum(transaction.c.amount_minor))
            .join(batch, batch.c.batch_id == transaction.c.batch_id)
            .where(batch.c.source == f"dagster run {run_id}", transaction.c.type == "EARNING")
            .group_by(transaction.c.currency)
        ).all()
        assert state_of(connection, hold_id) is HoldState.RELEASED
        assert wallet_of(connection, "worker-170").balance_minor == 125_050
    holds_released = sum(count for _, count, _ in released)
    amounts = amounts_text({currency: int(minor) for currency, _, minor in released}, {"PHP": 2, "JPY": 0})
    assert holds_released >= 1
    # The metadata of the last asset. The page follows the log, but not always to its end.
    for name, value in (("holds_released", str(holds_released)), ("amounts", amounts)):
        row = page.get_by_role("row").filter(has=page.get_by_text(name, exact=True)).last
        expect(row).to_contain_text(value)
        bring_into_view(row)
    picture(page, "release_run")

    page.goto("/assets/released_transactions")
    figure = page.get_by_role("cell", name=amounts, exact=True)
    expect(figure).to_be_visible()
    figure.scroll_into_view_if_needed()
    picture(page, "released_transactions")


def test_asset_page_of_the_daily_report_shows_its_plots(page: Page) -> None:
    """The three plots of the report that `dev` launched are drawn, each with its text alternative."""
    yesterday = (datetime.now(UTC) - timedelta(days=1)).date()

    page.goto(f"/assets/daily_release_report?view=partitions&partition={yesterday}")

    for row, what in enumerate(("Amount released", "Amount in the buffer", "Median and longest lateness")):
        page.get_by_text("[Show Markdown]").nth(row).click()
        plot = page.get_by_role("img", name=re.compile(f"^{what}"))
        expect(plot).to_be_visible()
        assert plot.evaluate("image => image.complete && image.naturalWidth > 0")
        picture(page, f"daily_report_{row}")
        page.keyboard.press("Escape")
        expect(plot).to_have_count(0)


def documented_paths() -> dict[str, list[str]]:
    """Return the click paths in README and docs, for example *Jobs → prune_runs → Launchpad*."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    found = [
        path for page in pages for path in re.findall(r"\*([^*\n]+ → [^*\n]+)\*", page.read_text("utf-8"))
    ]
    return {path: path.split(" → ") for path in found}


def follow(page: Page, path: str) -> None:
    """Click along the path from the first page. The last step may be a tab that is visible already."""
    page.goto("/")
    section, name, *buttons = path.split(" → ")
    page.get_by_text(section, exact=True).first.click()
    page.get_by_text(name, exact=True).first.click()
    for label in buttons:
        if label == "▾":
            # The arrow beside the button that launches.
            page.get_by_role("button").filter(has=page.get_by_label("arrow_drop_down")).first.click()
        else:
            page.get_by_text(re.compile(f"^{re.escape(label.rstrip('…'))}")).first.click()


def test_documented_click_paths_are_the_tested_ones() -> None:
    """One of them is the path that `dev` prints."""
    assert LAUNCHPAD in documented_paths()
    assert len(documented_paths()) >= 5


@pytest.mark.parametrize("path", documented_paths())
def test_documented_click_path_works(page: Page, path: str) -> None:
    """Each element is found, and the last click opens a form or a confirmation."""
    follow(page, path)

    if path.endswith("Launchpad"):
        expect(page.get_by_role("button", name="Launch Run")).to_be_visible()
    else:
        expect(page.locator(DIALOG)).to_be_visible()


def test_the_launchpad_has_every_field_and_a_dry_run_moves_nothing(page: Page, stack: Stack) -> None:
    """The documented clicks lead to the four fields. With dry_run set, no money moves."""
    with stack.engine.connect() as connection:
        before = connection.scalar(select(func.count()).select_from(transaction))

    follow(page, LAUNCHPAD)
    editor = page.locator(DIALOG).locator(".CodeMirror").first
    for field in ("as_of: now", "batch_limit: 20000", "workers: 1", "dry_run: false"):
        expect(editor).to_contain_text(field)
    editor.get_by_text("false", exact=True).dblclick()
    page.keyboard.type("true")
    expect(editor).to_contain_text("dry_run: true")
    page.locator(DIALOG).get_by_role("button", name="Materialize").click()
    page.wait_for_url(re.compile(r"/runs/[0-9a-f-]{36}"))
    expect(page.get_by_text("Success", exact=True)).to_be_visible()

    tags = ask(
        stack.port,
        "query ($run: ID!) {runOrError(runId: $run) {... on Run {tags {key value}}}}",
        run=urlsplit(page.url).path.rpartition("/")[2],
    )["runOrError"]["tags"]
    outcome = next(tag["value"] for tag in tags if tag["key"] == "buffer/outcome")
    assert outcome.startswith("would release ")
    with stack.engine.connect() as connection:
        assert connection.scalar(select(func.count()).select_from(transaction)) == before


def test_a_backfill_counts_two_days_of_hours(page: Page, stack: Stack) -> None:
    """Launched in the UI over 48 hours, it succeeds in one run, and the books have those counts."""
    with stack.engine.connect() as connection:
        today = datetime.combine(database_clock(connection).astimezone(UTC), time(0), UTC)
    first, end = today - timedelta(days=2), today

    # The UI shows this while nothing has been released.
    page.add_locator_handler(page.get_by_role("button", name="Confirm"), lambda button: button.click())
    page.goto("/assets/hourly_release_counts?view=partitions")
    page.get_by_role("button", name="Materialize").first.click()
    dialog = page.get_by_role("dialog")
    # An empty field means that nothing is selected yet.
    selection = dialog.get_by_placeholder("No matching partitions")
    selection.fill(f"[{first:%Y-%m-%d}-00:00...{end - timedelta(days=1):%Y-%m-%d}-23:00]")
    selection.press("Enter")
    expect(dialog.get_by_text("48 partitions", exact=True)).to_be_visible()
    expect(dialog.get_by_text("with a maximum of 720 partitions per run")).to_be_visible()
    picture(page, "backfill_launched")
    dialog.get_by_role("button", name="Launch backfill").click()
    page.get_by_role("link", name="View", exact=True).click()
    expect(page.get_by_text("100% completed")).to_be_visible(timeout=BACKFILL_PATIENCE_MS)
    expect(page.get_by_text("Succeeded", exact=True).first).to_be_visible(timeout=BACKFILL_PATIENCE_MS)
    picture(page, "backfill")

    with stack.engine.connect() as connection:
        counted = connection.execute(
            select(counted_hour.c.hour, counted_hour.c.counted_by).where(
                counted_hour.c.hour >= first, counted_hour.c.hour < end
            )
        ).all()
        holds_added = connection.scalar(
            select(func.sum(hourly_release_count.c.holds_added)).where(
                hourly_release_count.c.hour >= first, hourly_release_count.c.hour < end
            )
        )
        earnings = connection.scalar(
            select(func.count()).where(
                transaction.c.type == "PENDING_EARNING",
                transaction.c.recorded_at >= first,
                transaction.c.recorded_at < end,
            )
        )
    assert len({row.counted_by for row in counted}) == 1
    assert sorted(row.hour for row in counted) == [first + timedelta(hours=number) for number in range(48)]
    assert holds_added == earnings
    assert holds_added


def test_the_asset_graph_shows_every_asset(page: Page) -> None:
    """From the platform's events to the daily report."""
    names = sorted(key.to_user_string() for key in defs.resolve_asset_graph().get_all_asset_keys())

    page.goto("/asset-groups")
    # The nodes show their state when the graph is large enough.
    page.get_by_text("Hide navigation").click()
    page.reload()

    for name in names:
        node = page.locator("foreignObject").filter(has_text=name)
        expect(node.get_by_text("Latest event").first).to_be_visible()
    expect(page.locator("foreignObject").get_by_text(re.compile("^Loading"))).to_have_count(0)
    picture(page, "asset_graph")
