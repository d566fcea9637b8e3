"""The examples of docs/api.md run unchanged, one after the other, and answer what the page shows."""

import json
import os
import re
import subprocess
import sys
from typing import Any, Final

from buffer_pipeline_tests.openapi import document
from buffer_pipeline_tests.support.api import Api
from buffer_pipeline_tests.support.paths import ROOT

PAGE: Final = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
BLOCK: Final = re.compile(r"^```(bash|python|json)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def form(value: Any) -> Any:
    """Return a document with its texts' digits masked."""
    return json.loads(re.sub(r"\d+", "0", json.dumps(value)))


def test_examples_of_the_page(api: Api) -> None:
    """Each command and each Python block succeeds; JSON below one is its answer, apart from digits."""
    environment = {**os.environ, "API": api.url, "KEY": api.platform.token, "NO_PROXY": "127.0.0.1"}
    output = ""
    ran = []
    for kind, body in BLOCK.findall(PAGE):
        if kind == "json":
            assert form(json.loads(output)) == form(json.loads(body))
            continue
        program = ["bash", "-euo", "pipefail", "-c"] if kind == "bash" else [sys.executable, "-c"]
        done = subprocess.run(
            [*program, body], env=environment, capture_output=True, text=True, check=False, timeout=120
        )
        assert (done.returncode, done.stderr) == (0, ""), done.stdout
        output = done.stdout
        ran.append(output)

    held, asked, missing, listed = ran
    assert json.loads(held)["reference"] == "job-8-done"
    assert asked.splitlines()[0] == "OPEN"
    assert len(asked.splitlines()[1]) > 20
    assert json.loads(missing)["status"] == 404
    assert [hold["state"] for hold in json.loads(listed)["items"]] == ["FROZEN"]


def test_page_lists_each_endpoint() -> None:
    """With the summary that OpenAPI has, and none that does not exist."""
    listed = re.findall(r"^\| `((?:GET|POST|PUT) /\S+)` \| (.+) \|$", PAGE, re.MULTILINE)

    assert sorted(listed) == sorted(
        (f"{method.upper()} {path}", operation["summary"])
        for path, methods in document()["paths"].items()
        for method, operation in methods.items()
    )
