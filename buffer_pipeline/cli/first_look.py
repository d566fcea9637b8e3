"""What `dev` does with a fresh sample: the first runs, what they did, and what there is to try."""

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final

from buffer_pipeline.hours import HOUR, hour_of

SECONDS_MAX: Final = 120
"""A code location loads before it has jobs; and what is asked for twice is launched twice."""

POLL_SECONDS: Final = 0.5

LAUNCHPAD: Final = "Jobs → release_pending_payments → ▾ → Open launchpad"
"""The way to a job's configuration in the UI, as the documents have it."""

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
    """A sample that was just loaded: the first hour that reports have of it, and when it was loaded."""

    first_hour: datetime
    loaded_at: datetime


class NotLaunched(Exception):
    """A first run could not be launched, or did not end well. The schedules launch the next ones."""


def first_look(
    ui: str, location: str, sample: Sample, *, terminal: str, command: str, stop: threading.Event
) -> Iterator[str]:
    """Launch the first release, counts, report and proof one after the other, and yield what to print.

    The proof is launched whatever became of the others. `command` finds the books in `terminal`. Ends early
    when `stop` is set.
    """
    launch = partial(_run, ui, location, stop=stop)
    last_hour = hour_of(sample.loaded_at) - HOUR
    yesterday = f"{sample.loaded_at - timedelta(days=1):%Y-%m-%d}"
    nothing_due = ""
    first_thing = f"Look at what was released: {ui}/assets/released_transactions"
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
                first_thing = f"Look at yesterday's report: {ui}/assets/daily_release_report"
        except NotLaunched as failure:
            yield f"  {failure}. {_NEXT_RUNS}"
        launch("reconcile_books")
        yield f"  proved the books: {ui}/assets/books?view=checks"
    except NotLaunched as failure:
        yield f"  {failure}. {_NEXT_RUNS}"
    except Stopped:
        return
    yield (
        "Three things to try:\n"
        f"  1. {first_thing}\n"
        f"  2. Ask in {terminal} which payments are stuck: {command} stuck\n"
        f"  3. Try a release that moves no money: {LAUNCHPAD}, with dry_run: true{nothing_due}"
    )


class Stopped(Exception):
    """Somebody has stopped `dev` meanwhile."""


def _run(ui: str, location: str, job: str, *partitions: str, stop: threading.Event) -> dict[str, str]:
    """Launch a job over the first to the last of its partitions; return the run's tags once it succeeded."""
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
    deadline = time.monotonic() + SECONDS_MAX
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
    if stop.wait(POLL_SECONDS):
        raise Stopped


def _ask(ui: str, query: str, variables: Mapping[str, object]) -> dict[str, Any]:
    """Ask the UI's GraphQL; nothing while nobody is there.

    Raises:
        NotLaunched: it has the question and does not answer in time.
    """
    request = urllib.request.Request(  # noqa: S310 - our own webserver
        f"{ui}/graphql",
        data=json.dumps({"query": query, "variables": variables}).encode(),
        headers={"content-type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=SECONDS_MAX) as answer:  # noqa: S310
            data: dict[str, Any] = json.load(answer).get("data") or {}
            return data
    except TimeoutError:
        raise NotLaunched("the webserver does not answer") from None
    except (urllib.error.URLError, ConnectionError, json.JSONDecodeError):
        return {}
