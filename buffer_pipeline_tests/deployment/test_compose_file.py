"""Everything that docker-compose.yml and the Dockerfile name exists, in the code and in each other."""

import importlib
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import pytest
import yaml
from packaging.version import Version

from buffer_pipeline.settings import DAGSTER_URL, Settings
from buffer_pipeline_start import probe
from buffer_pipeline_tests.support.compose import read_compose, read_dockerfile, seconds, size_bytes
from buffer_pipeline_tests.support.paths import ROOT

PAGE: Final = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
DOCUMENT: Final = read_compose()
SERVICES: Final[dict[str, dict[str, Any]]] = DOCUMENT["services"]
LASTING: Final = {name: words for name, words in SERVICES.items() if words["restart"] != "no"}
TEMPLATE: Final = (ROOT / "deploy/nginx/nginx.conf.template").read_text(encoding="utf-8")
IMAGE: Final = read_dockerfile()[-1]
IMAGE_NAME: Final = "buffer-pipeline"

FROM_ELSEWHERE: Final = {"database_url", "dagster_database_url", "endpoints", "alert_urls"}
"""Settings that the file sets itself, or reads from a secret."""

FOLDERS: Final = {"home", "templates"}
"""Settings for the embedded database, which is absent, and for custom texts, which need a mount."""


def option(name: str, command: list[str]) -> str:
    """Return the value of a command's option."""
    return next(word.split("=", 1)[1] for word in command if word.startswith(f"--{name}="))


def test_file_matches_the_compose_schema() -> None:
    """Every key is known to Compose and has a value of its type."""
    checked = subprocess.run(
        [
            sys.executable,
            "-m",
            "check_jsonschema",
            "--builtin-schema=vendor.compose-spec",
            "docker-compose.yml",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert checked.returncode == 0, checked.stdout


# ---- variables


def test_each_variable_is_known() -> None:
    """Each variable of our services is a setting, a variable of libpq, or a file with one of these."""
    known = {f"BUFFER_{field.upper()}" for field in Settings.model_fields} | {"PGPASSWORD"}

    for name, words in SERVICES.items():
        if words["image"] == IMAGE_NAME:
            given = {variable.removesuffix("_FILE") for variable in words["environment"]}
            assert given <= known, name


def test_every_setting_can_be_set_in_env() -> None:
    """The values of .env reach the code. No other variable of it is read."""
    settings = {
        f"BUFFER_{field.upper()}" for field in Settings.model_fields.keys() - FROM_ELSEWHERE - FOLDERS
    }
    referenced = set(re.findall(r"\$\{(\w+)", PAGE))
    given = read_compose(**{name: f"as {name}" for name in settings})["services"]["code"]["environment"]

    assert referenced == settings | {
        *("COMPOSE_PROJECT_NAME", "VERSION"),
        *("OPERATORS_PORT", "VIEWERS_PORT", "METRICS_PORT"),
    }
    assert {name: given[name] for name in settings} == {name: f"as {name}" for name in settings}
    assert {f"BUFFER_{field.upper()}" for field in FROM_ELSEWHERE} <= {
        name.removesuffix("_FILE") for name in given
    }


def test_proxy_environment_matches_its_template() -> None:
    """Apart from the variables of the image itself."""
    given = {name for name in SERVICES["proxy"]["environment"] if not name.startswith("NGINX_")}

    assert set(re.findall(r"\$\{(\w+)\}", TEMPLATE)) == given


def test_each_password_file_is_used() -> None:
    """By roles.sql or by the command that runs it."""
    words = SERVICES["roles"]
    read = (ROOT / "deploy/roles.sql").read_text(encoding="utf-8") + " ".join(words["command"])
    given = {name for name in words["environment"] if name.endswith("_FILE")}

    assert set(re.findall(r"\$(\w+_FILE)", read)) == given


# ---- ports


def test_each_port_is_listened_at() -> None:
    """Each named port is one that a service listens on. Links in alerts lead to the operators' UI."""
    (server,) = yaml.safe_load((ROOT / "deploy/workspace.yaml").read_text())["load_from"]
    code = SERVICES["code"]["command"]
    listened = {
        name: int(option("port", SERVICES[name]["command"]))
        for name in ("code", "metrics", "webserver", "viewer")
    }
    proxied = {SERVICES["proxy"]["environment"][f"{seat}_WEBSERVER"] for seat in ("OPERATORS", "VIEWERS")}
    inside = {int(port) for port in re.findall(r"listen \$\{ADDRESS\}:(\d+)", TEMPLATE)}
    published = [port.split(":") for port in SERVICES["proxy"]["ports"]]

    assert (server["grpc_server"]["host"], server["grpc_server"]["port"]) == ("code", listened["code"])
    assert server["grpc_server"]["location_name"] == option("location-name", code)
    assert int(IMAGE.last("EXPOSE")) == listened["code"]
    assert proxied == {f"{name}:{listened[name]}" for name in ("webserver", "viewer")}
    assert {int(port) for _, _, port in published} == inside
    assert {address for address, _, _ in published} == {"127.0.0.1"}
    assert SERVICES["metrics"]["ports"] == [f"127.0.0.1:{listened['metrics']}:{listened['metrics']}"]
    assert published[0][1] == str(urlsplit(DAGSTER_URL).port)
    for name, words in LASTING.items():
        test = " ".join(words["healthcheck"]["test"]).replace(
            "probe code", f"probe code {probe.CODE_ADDRESS}"
        )
        referenced = re.findall(r"127\.0\.0\.1:(\d+)", test)
        assert {int(port) for port in referenced} <= ({listened[name]} if name in listened else inside), name


def test_published_ports_and_networks() -> None:
    """Only the proxy and metrics publish ports, and the proxy shares no network with the database."""
    networks = {name: set(words.get("networks", ["default"])) for name, words in SERVICES.items()}

    assert [name for name, words in SERVICES.items() if "ports" in words or "network_mode" in words] == [
        "metrics",
        "proxy",
    ]
    assert networks["proxy"] == {"seats"}
    assert [name for name, joined in networks.items() if "platform" in joined] == ["database"]
    assert {name for name, joined in networks.items() if "seats" in joined} == {
        "proxy",
        "webserver",
        "viewer",
    }


# ---- paths, and the code


def test_each_path_exists() -> None:
    """Mounts are in the repository or a volume, and paths in the image are copied there."""
    copied = {f"{IMAGE.last('WORKDIR')}/{Path(name).name}" for names, _ in IMAGE.copies for name in names}
    used = {mount.split(":")[0] for words in SERVICES.values() for mount in words.get("volumes", [])}
    volumes = {name for name in used if not name.startswith(".")}
    home = IMAGE.environment["DAGSTER_HOME"]

    assert all((ROOT / name).exists() for name in used - volumes)
    assert volumes == set(DOCUMENT["volumes"])
    assert {f"{home}/dagster.yaml", f"{home}/workspace.yaml", *IMAGE.entrypoint} == copied
    # Dagster keeps the logs of runs and the values between ops there.
    assert f"{home}/storage" in IMAGE.last("RUN")
    for name, words in SERVICES.items():
        if words["image"] == IMAGE_NAME and name != "migrate":
            assert words["volumes"] == [f"dagster:{home}/storage"], name
        secrets = {f"/run/secrets/{secret}" for secret in words.get("secrets", [])}
        written = " ".join([*map(str, words.get("environment", {}).values()), *words["command"]])
        assert set(re.findall(r"/run/secrets/\w+", written)) == secrets, name


def test_make_secrets_makes_each_secret(tmp_path: Path) -> None:
    """Each file is readable only by its owner. Existing files stay unchanged."""

    def make() -> None:
        subprocess.run([ROOT / "deploy/make-secrets", tmp_path / "secrets"], check=True)

    make()
    before = {file.name: file.read_text() for file in (tmp_path / "secrets").iterdir()}
    make()
    after = {file.name: file.read_text() for file in (tmp_path / "secrets").iterdir()}
    ignored = subprocess.run(
        ["git", "check-ignore", "deploy/secrets/any"], cwd=ROOT, check=False, capture_output=True
    )

    named = {Path(secret["file"]) for secret in DOCUMENT["secrets"].values()}
    passwords = [text for name, text in before.items() if name.endswith("_password")]
    assert {path.name for path in named} == set(before)
    assert {path.parent for path in named} == {Path("deploy/secrets")}
    assert before == after
    assert all(re.fullmatch("[0-9a-f]{48}", password) for password in passwords)
    assert len(set(passwords)) == len(passwords) == 6
    assert (tmp_path / "secrets").stat().st_mode & 0o777 == 0o700
    assert ignored.returncode == 0 or not (ROOT / ".git").exists()


def test_code_location_is_the_one_that_dev_loads() -> None:
    """The definitions and the name are those of workspace.yaml, also in the image's own command."""
    (module,) = yaml.safe_load((ROOT / "workspace.yaml").read_text())["load_from"]
    command = SERVICES["code"]["command"]
    named = module["python_module"]

    assert option("module-name", command) == named["module_name"]
    assert option("attribute", command) == named["attribute"]
    assert option("location-name", command) == named["location_name"]
    assert hasattr(importlib.import_module(named["module_name"]), named["attribute"])
    assert json.loads(IMAGE.last("CMD")) == command
    assert (
        json.loads(IMAGE.last("HEALTHCHECK").split(" CMD ")[1]) == SERVICES["code"]["healthcheck"]["test"][1:]
    )


# ---- how they run


def test_services_start_in_the_order_of_the_file() -> None:
    """A service waits for a healthy service or for the successful end of a one-shot command."""
    names = list(SERVICES)
    for name, words in SERVICES.items():
        for other, referenced in words.get("depends_on", {}).items():
            ends = SERVICES[other]["restart"] == "no"
            assert names.index(other) < names.index(name)
            assert referenced["condition"] == (
                "service_completed_successfully" if ends else "service_healthy"
            )
    assert [name for name, words in SERVICES.items() if "depends_on" not in words] == ["database"]


def test_there_is_one_daemon() -> None:
    """One service runs it, and a fixed container name prevents scaling it."""
    (daemon,) = (words for words in SERVICES.values() if words["command"][0] == "dagster-daemon")

    assert daemon["deploy"]["replicas"] == 1
    assert daemon["container_name"] == "buffer-daemon"


@pytest.mark.parametrize("name", SERVICES)
def test_each_service_has_limits(name: str) -> None:
    """Each restarts or runs once, and has a health check, log limits and resource limits."""
    words = SERVICES[name]
    limits = words["deploy"]["resources"]["limits"]

    assert words["restart"] == ("unless-stopped" if name in LASTING else "no")
    assert words["logging"]["options"].keys() == {"max-size", "max-file"}
    assert float(limits["cpus"]) > 0
    assert size_bytes(limits["memory"]) > 0
    assert limits["pids"] > 0
    assert "no-new-privileges:true" in words["security_opt"]
    if name != "database":
        assert (words["read_only"], words["cap_drop"], words["tmpfs"][0]) == (True, ["ALL"], "/tmp")
    if name in LASTING:
        check = words["healthcheck"]
        assert check["test"][0] in {"CMD", "CMD-SHELL"}
        assert seconds(check["start_interval"]) < seconds(check["interval"]) < seconds(check["start_period"])
        assert seconds(check["timeout"]) < seconds(check["interval"])


@pytest.mark.parametrize("image", sorted({words["image"] for words in SERVICES.values()} - {IMAGE_NAME}))
def test_base_images_have_fixed_versions(image: str) -> None:
    """No tag moves from one release to the next."""
    assert re.fullmatch(r"[a-z/-]+:\d+\.\d+(\.\d+)?(@sha256:[0-9a-f]{64})?", image)


# ---- the image


def test_image_is_slim_and_unprivileged() -> None:
    """The last stage is a slim Python of a fixed version, without build tools, with a user of its own."""
    bases = [stage.last("FROM").split()[0] for stage in read_dockerfile()]

    assert re.fullmatch(r"python:\d+\.\d+\.\d+-slim-\w+(@sha256:[0-9a-f]{64})?", bases[-1])
    assert all(re.search(r":\d+\.\d+\.\d+", base) for base in bases)
    assert [line for line in IMAGE.all("COPY") if line.startswith("--from=")] == [
        "--from=build /app/.venv .venv"
    ]
    assert int(IMAGE.last("USER")) > 0
    assert f"--uid {IMAGE.last('USER')} " in IMAGE.last("RUN")
    assert IMAGE.instructions.index(("USER", IMAGE.last("USER"))) > IMAGE.instructions.index(
        ("RUN", IMAGE.last("RUN"))
    )


def test_image_labels_match_the_project() -> None:
    """Name and licence are those of pyproject.toml; the version is the wheel's."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    labels = dict(re.findall(r'org\.opencontainers\.image\.(\w+)="([^"]*)"', IMAGE.last("LABEL")))

    assert (labels["title"], labels["licenses"]) == (project["name"], project["license"])
    assert labels["version"] == "${VERSION}"
    assert len({stage.last("ARG") for stage in read_dockerfile()[1:]}) == 1
    assert set(labels) >= {"description"}


def test_build_context_has_only_what_is_copied() -> None:
    """.dockerignore excludes everything else, including secrets."""
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    sent = {line.removeprefix("!") for line in lines if line.startswith("!")}
    copied = {name for stage in read_dockerfile() for names, _ in stage.copies for name in names}

    assert "*" in lines
    assert sent == copied
    assert all((ROOT / name).exists() for name in copied)


@pytest.mark.parametrize(
    ("described", "version"),
    [
        ("0.2.0", "0.2.0"),
        ("v0.2.0", "0.2.0"),
        ("0.2.0-4-g5e6f7a8", "0.2.0+4.g5e6f7a8"),
        ("5e6f7a8", "0+g5e6f7a8"),
        ("1234567", "0+g1234567"),
    ],
)
def test_git_description_becomes_a_version(described: str, version: str) -> None:
    """On a tag, between two tags and without one, the Dockerfile makes a PEP 440 version of it."""
    (expression,) = re.findall(r"sed -E '([^']*)'", (ROOT / "Dockerfile").read_text(encoding="utf-8"))

    written = subprocess.run(
        ["sed", "-E", expression], input=described, capture_output=True, text=True, check=True
    )

    assert written.stdout.strip() == version
    assert str(Version(version)) == version


def test_image_has_what_its_commands_need() -> None:
    """Payouts go out from a container: pain.001 needs lxml, and an IBAN needs schwifty."""
    installed = re.findall(r"--extra (\w+)", (ROOT / "Dockerfile").read_text(encoding="utf-8"))

    assert {"dagster", "metrics", "payouts"} <= set(installed)
