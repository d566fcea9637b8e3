"""The secrets of docker-compose.yml: which service gets them, and how they reach a command."""

import json
import os
import subprocess
import sys
from pathlib import Path

from buffer_pipeline_tests.support.compose import read_compose
from buffer_pipeline_tests.support.paths import ROOT


def test_each_secret_goes_only_to_services_that_need_it() -> None:
    """Only the server and the service that makes the logins have the superuser's password."""
    document = read_compose()
    seen_by = {
        name: {service for service, words in document["services"].items() if name in words.get("secrets", [])}
        for name in document["secrets"]
    }

    assert seen_by == {
        "postgres_password": {"database", "roles"},
        "owner_password": {"roles", "migrate"},
        "dagster_password": {"roles", "storage", "code", "metrics", "daemon", "webserver", "viewer"},
        "platform_password": {"roles"},
        "reader_password": {"roles"},
        "payouts_password": {"roles"},
        "endpoints": {"code"},
        "alert_urls": {"code"},
        "operators": {"proxy"},
        "viewers": {"proxy"},
    }


def test_with_secrets_passes_files_unchanged(tmp_path: Path) -> None:
    """No command starts without its file."""
    secret = """[{"name": "a", "secret": "it's $(id) `id` $HOME \\\\ %40"},\n {}]"""
    (tmp_path / "endpoints").write_text(f"{secret}\n")
    (tmp_path / "empty").write_text("")
    given = {
        "PATH": os.environ["PATH"],
        "BUFFER_ENDPOINTS_FILE": str(tmp_path / "endpoints"),
        "BUFFER_ALERT_URLS_FILE": str(tmp_path / "empty"),
        "SSL_CERT_FILE": "/nowhere",
    }
    code = "import json, os; print(json.dumps(dict(os.environ)))"
    show = [str(ROOT / "deploy/with-secrets"), sys.executable, "-c", code]

    shown = subprocess.run(show, env=given, capture_output=True, text=True, check=True)
    missing = subprocess.run(
        show, env={**given, "PGPASSWORD_FILE": "/nowhere"}, capture_output=True, text=True, check=False
    )

    environment = json.loads(shown.stdout)
    assert environment["BUFFER_ENDPOINTS"] == secret
    assert environment["BUFFER_ALERT_URLS"] == ""
    assert {name for name in environment if name.endswith("_FILE")} == {"SSL_CERT_FILE"}
    assert (missing.returncode != 0, missing.stdout) == (True, "")
