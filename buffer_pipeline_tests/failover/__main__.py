"""Make nodes of a replicated cluster fail under load. The exit code is 1 if anything was found."""

import argparse
import signal
import sys
import time

from buffer_pipeline_tests.failover.configuration import STORES
from buffer_pipeline_tests.failover.faults import FAULTS, LOSES
from buffer_pipeline_tests.failover.rig import new_rig, why_not
from buffer_pipeline_tests.failover.rounds import Run


def main() -> int:
    """Start a cluster, run, print counts and findings, and remove the cluster."""
    parser = argparse.ArgumentParser(prog="python -m buffer_pipeline_tests.failover", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="a fault each, of eight kinds in turn")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of all that is drawn at random")
    parser.add_argument("--threads", type=int, default=12)
    parser.add_argument(
        "--asynchronous",
        action="store_true",
        help="wait for no standby, leave them behind and kill the primary: shows that what is lost is found",
    )
    parser.add_argument(
        "--protocol",
        choices=sorted(STORES),
        default="2",
        help="of etcd: with 3 a Patroni before 3.0.3 loses writes when a frozen primary wakes",
    )
    options = parser.parse_args()
    if reason := why_not():
        parser.exit(2, f"{reason}\n")
    # `timeout` and supervisors end it as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return _run(options)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
        return 130


def _run(options: argparse.Namespace) -> int:
    print(f"seed {options.seed}, {options.rounds} rounds, {options.threads} threads", flush=True)
    began = time.monotonic()
    with new_rig(synchronous=not options.asynchronous, protocol=options.protocol) as rig:
        print(f"the cluster is up after {time.monotonic() - began:.0f} s", flush=True)
        run = Run(
            rig=rig,
            seed=options.seed,
            rounds=options.rounds,
            threads=options.threads,
            faults=LOSES if options.asynchronous else FAULTS,
        )
        try:
            run.go()
        finally:
            print("\n".join(run.tally.lines()))
            print(f"{run.summary()}; findings: {dict(run.findings.counts) or 'none'}", flush=True)
    return 1 if run.findings.counts else 0


if __name__ == "__main__":
    sys.exit(main())
