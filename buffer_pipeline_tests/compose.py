"""docker-compose.yml without Docker: its services as processes of this machine, by the file's own words.

Where a container has a network of its own, a service here has an address in 127.0.0.0/8, and where that
has a file system of its own, a folder. Host names and paths of the file are put into these; commands,
settings, ports, health checks, their order and how a service is stopped are the file's. What an image's
entrypoint does, `_prepare` and Dockerfile's ENTRYPOINT do.
"""

import os
import re
import secrets
import shutil
import signal
import string
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

ROOT: Final = Path(__file__).parents[1]
FILE: Final = ROOT / "docker-compose.yml"
WAIT_SECONDS_MAX: Final = 120
SYSTEM_PROGRAMS: Final = ("/usr/sbin", "/usr/bin", "/bin")

UNPRIVILEGED: Final = "nobody" if os.geteuid() == 0 else None
"""Who runs the database's server, which refuses root, and nginx, which gives its work to somebody else."""

_IMAGE_STOP_SIGNALS: Final = {"postgres": "SIGINT", "nginxinc": "SIGQUIT"}


def read_file(**variables: str) -> dict[str, Any]:
    """Return docker-compose.yml with its variables filled in, as Compose does."""

    def value(found: re.Match[str]) -> str:
        given = variables.get(found["name"], "")
        return given if given or not found["default"] else found["default"]

    page = FILE.read_text(encoding="utf-8")
    page = re.sub(r"(?<!\$)\$\{(?P<name>\w+)(?::-(?P<default>[^}]*))?\}", value, page)
    document: dict[str, Any] = yaml.safe_load(page.replace("$$", "$"))
    return document


def image() -> dict[str, Any]:
    """Return what the Dockerfile's last stage says: its environment, entrypoint, folder and files."""
    page = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    stage = page[page.rindex("\nFROM ") :]
    copied = [found.split() for found in re.findall(r"^COPY (?!--from)(.*) \./$", stage, re.M)]
    return {
        "workdir": re.findall(r"^WORKDIR (\S+)", stage, re.M)[-1],
        "files": [name for names in copied for name in names],
        "environment": dict(
            part.split("=", 1) for line in re.findall(r"^ENV (.*)", stage, re.M) for part in line.split()
        ),
        "entrypoint": yaml.safe_load(re.findall(r"^ENTRYPOINT (.*)", stage, re.M)[-1]),
    }


def seconds(duration: str) -> float:
    """Return a duration such as 1m30s in seconds."""
    units = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
    return sum(float(number) * units[unit] for number, unit in re.findall(r"([\d.]+)(ms|h|m|s)", duration))


@dataclass
class Service:
    """One service of the file: where it is on this machine, and its process."""

    name: str
    words: dict[str, Any]
    folder: Path
    """Its file system's root."""
    address: str
    process: subprocess.Popen[bytes] | None = None
    stopped_by_itself: bool | None = None

    @property
    def is_ours(self) -> bool:
        """Whether it runs in the image of our Dockerfile."""
        return "build" in self.words

    @property
    def log(self) -> str:
        """What it has printed."""
        return self.log_path.read_text(encoding="utf-8", errors="replace")

    @property
    def log_path(self) -> Path:
        """Where it prints to."""
        return self.folder.with_suffix(".log")


class Machine:
    """The services of the file, each to be started, watched and stopped."""

    def __init__(
        self,
        folder: Path,
        *,
        secret_files: Path,
        programs: tuple[Path, ...] = (),
        elsewhere: Mapping[str, str] | None = None,
        **variables: str,
    ) -> None:
        """`elsewhere` gives addresses for services that are not started here but by the test."""
        self.document = read_file(**variables)
        self._secret_files = secret_files
        self._programs = (Path(sys.executable).parent, *programs)
        self._folder = folder
        network = f"127.{secrets.randbelow(250) + 2}.{secrets.randbelow(250) + 2}"
        self.services = {
            name: Service(name, words, folder / name, f"{network}.{number}")
            for number, (name, words) in enumerate(self.document["services"].items(), 2)
        }
        self._hosts = {name: service.address for name, service in self.services.items()}
        self._hosts.update(elsewhere or {})

    # ---- starting

    def up(self) -> None:
        """Start all services in the file's order, each when what it waits for is as it asks."""
        for name, service in self.services.items():
            for other, asked in service.words.get("depends_on", {}).items():
                self.wait_for(other, asked["condition"])
            self.start(name)
        for name, service in self.services.items():
            if service.words.get("restart") != "no":
                self.wait_for(name, "service_healthy")

    def start(self, name: str) -> None:
        """Lay out the service's folder and start its command."""
        service = self.services[name]
        self._lay_out(service)
        command = self._prepare(service)
        with service.log_path.open("wb") as log:
            if UNPRIVILEGED:
                shutil.chown(service.log_path, UNPRIVILEGED)
            service.process = subprocess.Popen(
                command,
                cwd=self._workdir(service),
                env=self.environment(service),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # A group of its own, so that all that it starts can be ended with it.
                start_new_session=True,
                **self._user(service),
            )

    def wait_for(self, name: str, condition: str) -> None:
        """Wait until a service has ended well, or its health check passes."""
        service = self.services[name]
        process = service.process
        assert process is not None, f"{name} stands below a service that waits for it"
        if condition == "service_completed_successfully":
            assert process.wait(timeout=WAIT_SECONDS_MAX) == 0, f"{name}: {service.log}"
            return
        assert condition == "service_healthy"
        deadline = time.monotonic() + WAIT_SECONDS_MAX
        while not self.is_healthy(name):
            assert process.poll() is None, f"{name} has ended: {service.log}"
            assert time.monotonic() < deadline, f"{name} is not healthy: {service.log}"
            time.sleep(0.1)

    def is_healthy(self, name: str) -> bool:
        """Run the service's health check once."""
        service = self.services[name]
        check = service.words["healthcheck"]
        kind, *arguments = check["test"]
        command = [self._here(service, argument) for argument in arguments]
        done = subprocess.run(
            ["/bin/sh", "-c", *command] if kind == "CMD-SHELL" else command,
            cwd=self._workdir(service),
            env=self.environment(service),
            timeout=seconds(check["timeout"]),
            capture_output=True,
            check=False,
            **self._user(service),
        )
        return done.returncode == 0

    # ---- stopping

    def down(self) -> None:
        """Stop all services, the last one first, and end what is left of each."""
        for name in reversed(self.services):
            self.stop(name)

    def stop(self, name: str) -> None:
        """Ask a service to stop as Docker does, and end its group when its time is over."""
        service = self.services[name]
        process = service.process
        if process is None:
            return
        running = process.poll() is None
        if running:
            maker = service.words["image"].split("/")[0].split(":")[0]
            process.send_signal(signal.Signals[_IMAGE_STOP_SIGNALS.get(maker, "SIGTERM")])
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=seconds(service.words.get("stop_grace_period", "10s")))
        if running:
            service.stopped_by_itself = process.poll() is not None
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def left_over(self) -> list[int]:
        """Return the processes whose environment names this machine's folder."""
        named = os.fsencode(self._folder)
        found = []
        for environment in Path("/proc").glob("[0-9]*/environ"):
            try:
                if named in environment.read_bytes():
                    found.append(int(environment.parent.name))
            except OSError:
                continue  # It has ended meanwhile, or is somebody else's.
        return found

    # ---- the file's words, here

    def environment(self, service: Service) -> dict[str, str]:
        """Return all that the service's process finds in its environment."""
        environment = {
            "PATH": os.pathsep.join(map(str, (*self._programs, *SYSTEM_PROGRAMS))),
            "TMPDIR": str(service.folder / "tmp"),
        }
        words = service.words.get("environment", {})
        if service.is_ours:
            words = {**{k: v for k, v in image()["environment"].items() if k != "PATH"}, **words}
        return {
            **environment,
            **{name: self._here(service, value, hosts=True) for name, value in words.items()},
        }

    def _here(self, service: Service, word: object, *, hosts: bool = False) -> str:
        """Return a word of the file with the addresses and the folders of this machine."""
        paths = "|".join(sorted(self._paths(service), key=len, reverse=True))
        said = re.sub(rf"(?<![\w./-])({paths})(?![\w.-])", lambda at: f"{service.folder}{at[1]}", str(word))
        said = re.sub(r"\b(0\.0\.0\.0|127\.0\.0\.1)\b", service.address, said)
        if not hosts:
            return said
        names = "|".join(self._hosts)
        return re.sub(rf"(^|@)({names})(?=[:/]|$)", lambda at: at[1] + self._hosts[at[2]], said)

    def _paths(self, service: Service) -> list[str]:
        targets = [mount.split(":")[1] for mount in service.words.get("volumes", [])]
        own = [image()["workdir"]] if service.is_ours else []
        return [*targets, *service.words.get("tmpfs", []), "/run/secrets", *own]

    def _workdir(self, service: Service) -> Path:
        return service.folder / image()["workdir"].lstrip("/") if service.is_ours else service.folder

    def _user(self, service: Service) -> dict[str, Any]:
        if UNPRIVILEGED is None or service.words["command"][0] not in {"postgres", "nginx"}:
            return {}
        return {"user": UNPRIVILEGED, "group": "nogroup", "extra_groups": []}

    def _lay_out(self, service: Service) -> None:
        """Make the service's file system: mounts, secrets, and what the Dockerfile copies."""
        for made in ("tmp", "run/secrets"):
            (service.folder / made).mkdir(parents=True)
        if service.is_ours:
            self._workdir(service).mkdir()
            for name in image()["files"]:
                shutil.copy(ROOT / name, self._workdir(service))
            workspace = self._workdir(service) / "workspace.yaml"
            workspace.write_text(
                re.sub(r"(?<=host: )(\w+)", lambda at: self._hosts[at[1]], workspace.read_text())
            )
        for name in service.words.get("secrets", []):
            file = self.document["secrets"][name]["file"]
            shutil.copy(self._secret_files / Path(file).name, service.folder / "run/secrets" / name)
        for mount in service.words.get("volumes", []):
            source, target, *_ = str(mount).split(":")
            at = service.folder / target.lstrip("/")
            at.parent.mkdir(parents=True, exist_ok=True)
            if source.startswith("."):
                (shutil.copytree if (ROOT / source).is_dir() else shutil.copy)(ROOT / source, at)
            else:
                volume = self._folder / "volumes" / source
                volume.mkdir(parents=True, exist_ok=True)
                at.symlink_to(volume)
        if UNPRIVILEGED and not service.is_ours:
            for path in (service.folder / "tmp", *(self._folder / "volumes").glob("books")):
                shutil.chown(path, UNPRIVILEGED)

    def _prepare(self, service: Service) -> list[str]:
        """Do what the image's entrypoint does, and return the command."""
        command = [self._here(service, argument) for argument in service.words["command"]]
        environment = self.environment(service)
        if service.is_ours:
            return [*(self._here(service, word) for word in image()["entrypoint"]), *command]
        if command[0] == "nginx":
            for template in (service.folder / "etc/nginx/templates").glob("*.template"):
                page = string.Template(template.read_text(encoding="utf-8")).safe_substitute(environment)
                (Path(environment["NGINX_ENVSUBST_OUTPUT_DIR"]) / template.stem).write_text(page)
        if command[0] == "postgres":
            data = self._folder / "volumes/books/data"
            password = f"--pwfile={environment['POSTGRES_PASSWORD_FILE']}"
            options = ["--username=postgres", "--auth-host=scram-sha-256", "--no-sync", password]
            subprocess.run(
                ["initdb", f"--pgdata={data}", *options],
                env=environment,
                cwd="/",
                check=True,
                stdout=subprocess.DEVNULL,
                **self._user(service),
            )
            with (data / "pg_hba.conf").open("a") as conf:
                conf.write("host all all all scram-sha-256\n")
            command += ["-D", str(data), "-c", f"listen_addresses={service.address}"]
            command += ["-c", f"unix_socket_directories={service.folder / 'tmp'}"]
        return command


def require_nginx() -> None:
    """Skip where what the proxy needs is not installed, or fail where REQUIRE_NGINX is set."""
    missing = [
        program
        for program in ("nginx", "curl", "openssl")
        if shutil.which(program, path=os.pathsep.join(SYSTEM_PROGRAMS)) is None
    ]
    if missing:
        reason = f"not installed: {', '.join(missing)} (apt-get install nginx-light curl openssl)"
        if os.environ.get("REQUIRE_NGINX"):
            pytest.fail(reason)
        pytest.skip(reason)


@contextmanager
def machine(folder: Path, **options: Any) -> Iterator[Machine]:
    """Yield the file's services; at the end all that was started is stopped, whatever happened."""
    # The services' users pass through, as they are others than whoever runs the tests.
    folder.chmod(0o711)
    made = Machine(folder, **options)
    try:
        yield made
    finally:
        made.down()


def make_secrets(folder: Path) -> None:
    """Make the secrets as docs/compose.md says."""
    subprocess.run([ROOT / "deploy" / "make-secrets", folder], check=True)


def add_login(file: Path, name: str, password: str) -> None:
    """Add somebody to a file of passwords as docs/compose.md says; there the password is asked for."""
    hashed = subprocess.run(
        ["openssl", "passwd", "-6", "-stdin"], input=password, text=True, check=True, capture_output=True
    ).stdout.strip()
    with file.open("a") as logins:
        logins.write(f"{name}:{hashed}\n")
