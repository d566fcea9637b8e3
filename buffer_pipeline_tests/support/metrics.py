"""The Prometheus endpoint as a process, and the content of a scrape."""

import json
import signal
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from prometheus_client.parser import text_string_to_metric_families

from buffer_pipeline_tests.support.processes import start

Figures = dict[tuple[str, frozenset[tuple[str, str]]], float]


def series(name: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    """Return the name of a figure in `Figures`."""
    return name, frozenset(labels.items())


def figures_of(page: str) -> Figures:
    """Return the figures in a scrape, by prometheus_client's parser."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


@contextmanager
def endpoint(url: str, **settings: str) -> Iterator[Callable[[], Figures]]:
    """Run the command on these books and yield a scrape function. SIGTERM stops it at the end."""
    process = start("metrics", "--port", "0", "--json", BUFFER_DATABASE_URL=url, **settings)
    try:
        assert process.stdout is not None
        address = json.loads(process.stdout.readline())["url"]

        def scrape() -> Figures:
            with urllib.request.urlopen(address, timeout=30) as answer:
                return figures_of(answer.read().decode())

        yield scrape
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            _, err = process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    assert process.returncode == 143
    assert "Traceback" not in err
