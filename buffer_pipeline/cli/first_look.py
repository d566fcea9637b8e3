"""What `dev` shows of a fresh sample: the first runs, their results, and three things to try."""

import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final

from buffer_pipeline.cli.dev_ui import UI_ANSWER_SECONDS_MAX, NoAnswer, ask
from buffer_pipeline.hours import HOUR, hour_of

RUN_POLL_SECONDS: Final = 0.5

LAUNCHPAD: Final = "Jobs → release_pending_payments → ▾ → Open launchpad"
"""The path to the configuration of the release job in the UI, as in the documents."""

FIRST_ASSET: Final = "released_transactions"
REPORT: Final = "daily_release_report"
_ASSETS: Final = {FIRST_ASSET: "what was released", REPORT: "yesterday's report"}

_LAUNCH: Final = """mutation ($selector: JobOrPipelineSelector!, $tags: [ExecutionTag!]!) {
  launchRun(executionParams: {mode: "default", runConfigData: {}, selector: $selector,
    executionMetadata: {tags: $tags}}) {__typename ... on LaunchRunSuccess {run {runId}}}}"""
_RUN: Final = "query ($id: ID!) {runOrError(runId: $id) {... on Run {status tags {key value}}}}"
_FINAL: Final = {"SUCCESS", "FAILURE", "CANCELED"}

_RANGE_START: Final = "dagster/asset_partition_range_start"
_RANGE_END: Final = "dagster/asset_partition_range_end"
_OUTCOME: Final = "buffer/outcome"
_HOUR_KEY: Final = "%Y-%m-%d-%H:%M"

_NEXT_RUNS: Final = (
    "The schedules launch the next ones: releases on the hour, counts at ten and reports at twenty past,"
    " the proof at 02:40 UTC."
)


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A sample that was just loaded: its first hour in the reports, and when it was loaded."""

    first_hour: datetime
    loaded_at: datetime


class NotLaunched(Exception):
    """A first run could not be launched, or did not succeed. The schedules launch the next ones."""


def first_look(
    ui: str, location: str, sample: Sample, *, terminal: str, command: str, stop: threading.Event
) -> Iterator[str]:
    """Launch the first release, counts, report and proof one after the other, and yield what to print.

    The proof is launched even if another run failed. `command` finds the books in `terminal`. Ends early if
    `stop` is set.
    """
    launch = partial(_run, ui, location, stop=stop)
    last_hour = hour_of(sample.loaded_at) - HOUR
    yesterday = f"{sample.loaded_at - timedelta(days=1):%Y-%m-%d}"
    nothing_due = ""
    first_asset = FIRST_ASSET
    try:
        yield "The sample's hourly job was down for 30 hours. The first runs:"
        try:
            tags = launch("release_pending_payments")
            yield f"  {tags[_OUTCOME]}: {ui}/runs/{tags['run']}"
            nothing_due = ". It would release 0 payments until one more is due: the first run took the others"
            if sample.first_hour <= last_hour:
                tags = launch(
                    "count_hours", *[f"{hour:{_HOUR_KEY}}" for hour in (sample.first_hour, last_hour)]
                )
                hours = (last_hour - sample.first_hour) // HOUR + 1
                yield f"  counted {hours} hours: {ui}/runs/{tags['run']}"
            if f"{sample.first_hour:%Y-%m-%d}" <= yesterday:
                tags = launch("report_days", yesterday, yesterday)
                yield f"  reported {yesterday}: {ui}/runs/{tags['run']}"
                first_asset = REPORT
        except NotLaunched as failure:
            yield f"  {failure}. {_NEXT_RUNS}"
        launch("reconcile_books")
        yield f"  proved the books: {ui}/assets/books?view=checks"
    except NotLaunched as failure:
        yield f"  {failure}. {_NEXT_RUNS}"
    except FirstRunsStopped:
        return
    yield things_to_try(ui, first_asset, terminal=terminal, command=command, note=nothing_due)


def things_to_try(ui: str, asset: str, *, terminal: str, command: str, note: str = "") -> str:
    """Return three things to try: the page of an asset, a command, and a dry run.

    `command` finds the books in `terminal`. `note` follows the dry run.
    """
    return (
        "Three things to try:\n"
        f"  1. Look at {_ASSETS[asset]}: {ui}/assets/{asset}\n"
        f"  2. List in {terminal} the payments that are stuck: {command} stuck\n"
        f"  3. Try a release that moves no money: {LAUNCHPAD}, with dry_run: true{note}"
    )


class FirstRunsStopped(Exception):
    """`dev` was stopped during the first runs."""


def _run(ui: str, location: str, job: str, *partitions: str, stop: threading.Event) -> dict[str, str]:
    """Launch a job over a range of partitions, given by its first and last; return the tags of the run.

    Raises:
        NotLaunched: it could not be launched, or did not succeed.
        FirstRunsStopped: `stop` was set.
    """
    variables = {
        "selector": {
            "repositoryLocationName": location,
            "repositoryName": "__repository__",
            "jobName": job,
        },
        "tags": [
            {"key": key, "value": value}
            for key, value in zip((_RANGE_START, _RANGE_END), partitions, strict=False)
        ],
    }
    deadline = time.monotonic() + UI_ANSWER_SECONDS_MAX
    while (launched := _ask(ui, _LAUNCH, variables).get("launchRun", {})).get("run") is None:
        if time.monotonic() > deadline:
            raise NotLaunched(f"{job} was not launched ({launched.get('__typename', 'no answer')})")
        _pause(stop)
    run_id = launched["run"]["runId"]
    while (run := _ask(ui, _RUN, {"id": run_id}).get("runOrError", {})).get("status") not in _FINAL:
        _pause(stop)
    if run["status"] != "SUCCESS":
        raise NotLaunched(f"{job} ended as {run['status']}: {ui}/runs/{run_id}")
    return {tag["key"]: tag["value"] for tag in run["tags"]} | {"run": run_id}


def _pause(stop: threading.Event) -> None:
    if stop.wait(RUN_POLL_SECONDS):
        raise FirstRunsStopped


def _ask(ui: str, query: str, variables: Mapping[str, object]) -> dict[str, Any]:
    try:
        return ask(ui, query, variables)
    except NoAnswer as error:
        raise NotLaunched(str(error)) from None
