"""Housekeeping: a daily job deletes old runs, because Dagster keeps every run and its log forever."""

import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import dagster as dg
from pydantic import Field

from buffer_pipeline.orchestration.metadata import table_metadata
from buffer_pipeline.orchestration.resources import Clock
from buffer_pipeline.settings import Settings

FINISHED: Final = (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)

DELETED_RUNS_MAX: Final = 10_000
"""The default limit of one job run: a few minutes of work. A day has about fifty runs."""

HOUSEKEEPING_SECONDS_MAX: Final = 1200
"""The job stops well before the `max_runtime_seconds` of the instance, which would fail its run."""

REPOSITORY_TAG: Final = ".dagster/repository"
"""The tag with the code location of a run, as name@location. A run outside a code server has none."""

_PAGE: Final = 500


class PruneConfig(dg.Config):
    """The configuration of the job. The schedule uses the defaults."""

    dry_run: bool = Field(
        default=False, description="Select and count what a real run would delete, but delete nothing."
    )
    keep_days: int | None = Field(
        default=None,
        ge=1,
        description="Delete what is older than this number of days; BUFFER_KEEP_RUNS_DAYS if left out.",
    )
    runs_max: int = Field(
        default=DELETED_RUNS_MAX,
        ge=1,
        description="Delete at most this number of runs, the oldest first. The run of the next day deletes"
        " the rest.",
    )


@dataclass(frozen=True, kw_only=True)
class Pruned:
    """The deleted runs and ticks, the old runs that were kept (run id -> reason), and the old runs left."""

    runs: int
    ticks: int
    kept: Mapping[str, str]
    runs_left: int


def prune(
    instance: dg.DagsterInstance,
    *,
    before: datetime,
    check_keys: Iterable[dg.AssetCheckKey],
    repository: str | None = None,
    dry_run: bool = False,
    runs_max: int = DELETED_RUNS_MAX,
    seconds_max: float = HOUSEKEEPING_SECONDS_MAX,
) -> Pruned:
    """Delete the runs that finished before `before`, their logs and files, and the ticks before it.

    These are kept: runs in progress, the run with the latest materialization of each asset, the run with the
    latest evaluation of each of `check_keys`, and the latest tick of each schedule and sensor. With
    `repository` (name@location), nothing of other code locations is deleted. At most `runs_max` runs are
    deleted, and none after `seconds_max`. Safe to run again, also after an interruption. A dry run selects
    the same runs and ticks but deletes nothing.
    """
    deadline = time.monotonic() + seconds_max
    ticks = _prune_ticks(instance, before=before, repository=repository, dry_run=dry_run)
    tags = {} if repository is None else {REPOSITORY_TAG: repository}
    old = dg.RunsFilter(statuses=FINISHED, updated_before=before, tags=tags)
    reasons = _latest_of(instance, check_keys=check_keys)
    # Read all ids before the first deletion: a page starts after a run that must still exist.
    ids = list(_run_ids(instance, old))
    kept = {run_id: reasons[run_id] for run_id in ids if run_id in reasons}
    chosen = [run_id for run_id in ids if run_id not in kept][:runs_max]
    runs = 0
    for run_id in chosen:
        if time.monotonic() >= deadline:
            break
        if not dry_run:
            _delete_run(instance, run_id)
        runs += 1
    return Pruned(runs=runs, ticks=ticks, kept=kept, runs_left=len(ids) - len(kept) - runs)


def _run_ids(instance: dg.DagsterInstance, filters: dg.RunsFilter) -> Iterator[str]:
    """Yield the runs' ids, the oldest first."""
    cursor = None
    while page := instance.get_run_records(filters, limit=_PAGE, cursor=cursor, ascending=True):
        for record in page:
            cursor = record.dagster_run.run_id
            yield cursor


def _latest_of(instance: dg.DagsterInstance, *, check_keys: Iterable[dg.AssetCheckKey]) -> dict[str, str]:
    """Return run id -> what the page of an asset would lose with the run."""
    reasons: dict[str, str] = {}
    for key in instance.all_asset_keys():
        materialized = instance.get_latest_materialization_event(key)
        if materialized is not None:
            reasons.setdefault(materialized.run_id, f"latest materialization of {key.to_user_string()}")
    for check_key in check_keys:
        evaluated = instance.get_latest_asset_check_evaluation_record(check_key)
        if evaluated is not None:
            reasons.setdefault(evaluated.run_id, f"latest evaluation of {check_key.to_user_string()}")
    return reasons


def _delete_run(instance: dg.DagsterInstance, run_id: str) -> None:
    # The run itself last: cut short before that, the next day finds it again.
    instance.compute_log_manager.delete_logs(prefix=[run_id])
    # Where the default IO manager puts what ops hand on; with local compute logs it is gone by now.
    files = Path(instance.storage_directory()) / run_id
    if files.is_dir():
        shutil.rmtree(files)
    instance.delete_run(run_id)


def _prune_ticks(
    instance: dg.DagsterInstance, *, before: datetime, repository: str | None, dry_run: bool
) -> int:
    ticks = 0
    for state in instance.all_instigator_state():
        if repository not in (None, state.origin.repository_origin.get_label()):
            continue
        origin_id, selector_id = state.instigator_origin_id, state.selector_id
        latest = instance.get_ticks(origin_id, selector_id, limit=1)
        if not latest:
            continue
        # The scheduler continues from the latest tick, and the UI shows it.
        until = min(before.timestamp(), latest[0].timestamp)
        page_until = until
        while page := instance.get_ticks(origin_id, selector_id, before=page_until, limit=_PAGE):
            ticks += len(page)
            page_until = page[-1].timestamp
            for tick in page:
                if tick.log_key and not dry_run:
                    instance.compute_log_manager.delete_logs(log_key=tick.log_key)
        if not dry_run:
            instance.purge_ticks(origin_id, selector_id, before=until)
    return ticks


@dg.op(
    name="prune",
    out=dg.Out(dg.Nothing),
    description="Deletes finished runs and ticks that are older than BUFFER_KEEP_RUNS_DAYS, with their logs"
    " and files, the oldest first. Keeps what the page of an asset shows as its latest.",
)
def prune_op(
    context: dg.OpExecutionContext,
    config: PruneConfig,
    clock: dg.ResourceParam[Clock],
    settings: dg.ResourceParam[Settings],
) -> None:
    """Delete old runs, and report what was deleted, what was kept and why."""
    started = time.monotonic()
    keep_days = config.keep_days or settings.keep_runs_days
    before = clock.machine() - timedelta(days=keep_days)
    pruned = prune(
        context.instance,
        before=before,
        check_keys=context.repository_def.asset_graph.asset_check_keys,
        repository=context.run.tags.get(REPOSITORY_TAG),
        dry_run=config.dry_run,
        runs_max=config.runs_max,
    )
    kept = [{"run": run_id, "because": reason} for run_id, reason in pruned.kept.items()]
    context.add_output_metadata(
        {
            "runs": pruned.runs,
            "ticks": pruned.ticks,
            "runs_kept": len(kept),
            **table_metadata("kept", kept),
            "runs_left": pruned.runs_left,
            "older_than": dg.MetadataValue.timestamp(before),
            "dry_run": config.dry_run,
            "seconds": round(time.monotonic() - started, 3),
        }
    )


@dg.job(
    executor_def=dg.in_process_executor,
    tags={"dagster/retry_strategy": "ALL_STEPS"},
    description="Deletes Dagster's runs, ticks and logs that are older than BUFFER_KEEP_RUNS_DAYS. Does not"
    " use the books and moves no money. With `dry_run` it reports what it would delete.",
)
def prune_runs() -> None:
    """Prune in one op."""
    prune_op()


daily_prune: Final = dg.ScheduleDefinition(
    name="daily_prune",
    job=prune_runs,
    cron_schedule="30 3 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every day at 03:30 UTC, between two releases. If one day is missed, the next run deletes its"
    " share too.",
)
