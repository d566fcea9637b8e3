"""docker-compose.yml without Docker: its services as processes of this machine, by the file's own words.

Where a container has a network of its own, a service here has an address in 127.0.0.0/8, and where that
has a file system of its own, a folder. Host names and paths of the file are put into these; commands,
settings, ports, health checks, their order and what a service may not do are the file's.
"""

import os
import pwd
import re
import secrets
import shutil
import signal
import string
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from buffer_pipeline_tests.compose import ROOT, copy, read_compose, read_dockerfile, seconds

WAIT_SECONDS_MAX: Final = 120
SYSTEM_PROGRAMS: Final = ("/usr/sbin", "/usr/bin", "/bin")

UNPRIVILEGED: Final = "nobody" if os.geteuid() == 0 else None
"""Who runs the database's server, which refuses root, and nginx, which gives its work to somebody else."""

STOP_SIGNALS: Final = {"postgres": signal.SIGINT, "nginx": signal.SIGQUIT}
"""What the images of others are stopped by; ours by SIGTERM."""


@dataclass
class Service:
    """One service of the file: where it is on this machine, and its process."""

    name: str
    words: dict[str, Any]
    folder: Path
    """Its file system's root."""
    address: str
    command: list[str] = field(default_factory=list)
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

    @property
    def workdir(self) -> Path:
        """Where its commands run."""
        return self.folder / _IMAGE.last("WORKDIR").lstrip("/") if self.is_ours else self.folder

    @property
    def user(self) -> dict[str, Any]:
        """Who runs it, as arguments of Popen."""
        if UNPRIVILEGED is None or self.words["command"][0] not in STOP_SIGNALS:
            return {}
        return {"user": UNPRIVILEGED, "group": pwd.getpwnam(UNPRIVILEGED).pw_gid, "extra_groups": []}

    @property
    def confinement(self) -> list[str]:
        """What takes root's power over files away, where the file asks for it: read-only is for root too."""
        if os.geteuid() != 0 or self.words.get("cap_drop") != ["ALL"]:
            return []
        return ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"]


_IMAGE: Final = read_dockerfile()[-1]


class Machine:
    """The services of the file, each to be started, watched and stopped."""

    def __init__(
        self,
        folder: Path,
        *,
        secret_files: Path,
        programs: Sequence[Path] = (),
        elsewhere: Mapping[str, str] | None = None,
    ) -> None:
        """`programs` are those of the images; `elsewhere` has addresses of what the test starts itself."""
        self.document = read_compose()
        self._secret_files = secret_files
        self._programs = programs
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
            if service.words["restart"] != "no":
                self.wait_for(name, "service_healthy")

    def start(self, name: str) -> None:
        """Lay out the service's folder and start its command."""
        service = self.services[name]
        self._lay_out(service)
        service.command = self._prepare(service)
        with service.log_path.open("wb") as log:
            if UNPRIVILEGED:
                shutil.chown(service.log_path, UNPRIVILEGED)
            service.process = subprocess.Popen(
                [*service.confinement, *service.command],
                cwd=service.workdir,
                env=self._environment(service),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # A group of its own, so that all that it starts can be ended with it.
                start_new_session=True,
                **service.user,
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
        check = self.services[name].words["healthcheck"]
        kind, *command = check["test"]
        shell = ["/bin/sh", "-c"] if kind == "CMD-SHELL" else []
        return self.run_in(name, *shell, *command, seconds_max=seconds(check["timeout"])).returncode == 0

    def run_in(
        self, name: str, *command: str, seconds_max: float = WAIT_SECONDS_MAX
    ) -> subprocess.CompletedProcess[str]:
        """Run a command beside the service, as `docker compose exec` does."""
        service = self.services[name]
        return subprocess.run(
            [*service.confinement, *(self._here(service, word) for word in command)],
            cwd=service.workdir,
            env=self._environment(service),
            timeout=seconds_max,
            capture_output=True,
            text=True,
            check=False,
            **service.user,
        )

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
        if process.poll() is None:
            process.send_signal(STOP_SIGNALS.get(service.words["command"][0], signal.SIGTERM))
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=seconds(service.words.get("stop_grace_period", "10s")))
            service.stopped_by_itself = process.poll() is not None
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def running(self) -> list[str]:
        """Return the services whose process has not ended."""
        return [
            name
            for name, service in self.services.items()
            if service.process is not None and service.process.poll() is None
        ]

    def memory_bytes(self, name: str) -> int:
        """Return what the processes of a service take; what they share is counted once."""
        process = self.services[name].process
        assert process is not None
        total_kb = 0
        for shares in Path("/proc").glob("[0-9]*/smaps_rollup"):
            with suppress(OSError):  # It has ended meanwhile, or is somebody else's.
                if os.getpgid(int(shares.parent.name)) == process.pid:
                    total_kb += int(re.findall(r"^Pss:\s+(\d+)", shares.read_text(), re.M)[0])
        return total_kb * 1024

    def left_over(self) -> list[int]:
        """Return the processes whose environment names this machine's folder."""
        named = os.fsencode(self._folder)
        found = []
        for environment in Path("/proc").glob("[0-9]*/environ"):
            with suppress(OSError):  # It has ended meanwhile, or is somebody else's.
                if named in environment.read_bytes():
                    found.append(int(environment.parent.name))
        return found

    # ---- the file's words, here

    def _environment(self, service: Service) -> dict[str, str]:
        """Return all that the service's process finds in its environment."""
        words: dict[str, Any] = service.words.get("environment", {})
        if service.is_ours:
            words = {**_IMAGE.environment, **words}
        return {
            **{name: self._here(service, word, hosts=True) for name, word in words.items()},
            "PATH": os.pathsep.join(map(str, (*self._programs, *SYSTEM_PROGRAMS))),
            "TMPDIR": str(service.folder / "tmp"),
        }

    def _here(self, service: Service, word: str, *, hosts: bool = False) -> str:
        """Return a word of the file with the folders and the addresses of this machine."""
        paths = [mount.split(":")[1] for mount in service.words.get("volumes", [])]
        paths += [*service.words.get("tmpfs", []), "/run/secrets"]
        paths += [_IMAGE.last("WORKDIR")] if service.is_ours else []
        known = "|".join(sorted(paths, key=len, reverse=True))
        said = re.sub(rf"(?<![\w./-])({known})(?![\w.-])", lambda at: f"{service.folder}{at[1]}", word)
        said = re.sub(r"\b(0\.0\.0\.0|127\.0\.0\.1)\b", service.address, said)
        if not hosts:
            return said
        names = "|".join(self._hosts)
        return re.sub(rf"(^|@)({names})(?=[:/]|$)", lambda at: at[1] + self._hosts[at[2]], said)

    def _lay_out(self, service: Service) -> None:
        """Make the service's file system: mounts, secrets, and what the Dockerfile copies."""
        # A container that is made anew keeps its volumes only.
        _remove(service.folder)
        for folder in ("tmp", "run/secrets"):
            (service.folder / folder).mkdir(parents=True)
        if service.is_ours:
            service.workdir.mkdir()
            for names, _ in _IMAGE.copies:
                for name in names:
                    copy(ROOT / name, service.workdir)
            workspace = service.workdir / "workspace.yaml"
            page = workspace.read_text()
            workspace.write_text(re.sub(r"(?<=host: )(\w+)", lambda at: self._hosts[at[1]], page))
        for name in service.words.get("secrets", []):
            file = Path(self.document["secrets"][name]["file"]).name
            copy(self._secret_files / file, service.folder / "run/secrets" / name)
        for mount in service.words.get("volumes", []):
            self._mount(service, *mount.split(":")[:2])
        if service.user and UNPRIVILEGED:
            for path in (service.folder / "tmp", *(self._folder / "volumes").glob("books")):
                shutil.chown(path, UNPRIVILEGED)
        if service.words.get("read_only"):
            scratch = {service.folder / path.lstrip("/") for path in service.words["tmpfs"]}
            for found in {service.folder, *service.folder.rglob("*")} - scratch:
                if not found.is_symlink():
                    found.chmod(found.stat().st_mode & 0o555)

    def _mount(self, service: Service, source: str, target: str) -> None:
        at = service.folder / target.lstrip("/")
        at.parent.mkdir(parents=True, exist_ok=True)
        if source.startswith("."):
            copy(ROOT / source, at)
        else:
            volume = self._folder / "volumes" / source
            volume.mkdir(parents=True, exist_ok=True)
            at.symlink_to(volume)

    def _prepare(self, service: Service) -> list[str]:
        """Do what the image's entrypoint does, and return the command."""
        command = [self._here(service, argument) for argument in service.words["command"]]
        environment = self._environment(service)
        if service.is_ours:
            return [*(self._here(service, word) for word in _IMAGE.entrypoint), *command]
        if command[0] == "nginx":
            for template in (service.folder / "etc/nginx/templates").glob("*.template"):
                page = string.Template(template.read_text(encoding="utf-8")).safe_substitute(environment)
                (Path(environment["NGINX_ENVSUBST_OUTPUT_DIR"]) / template.stem).write_text(page)
        if command[0] == "postgres":
            data = self._folder / "volumes/books/data"
            password = f"--pwfile={environment['POSTGRES_PASSWORD_FILE']}"
            options = ["--username=postgres", password, *environment["POSTGRES_INITDB_ARGS"].split()]
            # Whoever comes from this machine is in the container itself there, and is let in.
            options.append("--auth-host=scram-sha-256")
            made = self.run_in(service.name, "initdb", f"--pgdata={data}", *options)
            assert made.returncode == 0, made.stderr
            with (data / "pg_hba.conf").open("a") as conf:
                conf.write("host all all all scram-sha-256\n")
            command += ["-D", str(data), "-c", f"listen_addresses={service.address}"]
            command += ["-c", f"unix_socket_directories={service.folder / 'tmp'}"]
        return command


def _remove(folder: Path) -> None:
    for found in (folder, *folder.rglob("*")):
        if found.is_dir() and not found.is_symlink():
            found.chmod(0o755)
    shutil.rmtree(folder, ignore_errors=True)


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


def require_nginx() -> None:
    """Skip where what the proxy needs is not installed, or fail where REQUIRE_NGINX is set."""
    path = os.pathsep.join(SYSTEM_PROGRAMS)
    missing = [
        program
        for program in ("nginx", "curl", "openssl", "setpriv")
        if shutil.which(program, path=path) is None
    ]
    if missing:
        reason = f"not installed: {', '.join(missing)} (apt-get install nginx-light curl openssl util-linux)"
        if os.environ.get("REQUIRE_NGINX"):
            pytest.fail(reason)
        pytest.skip(reason)


def make_secrets(folder: Path) -> None:
    """Make the secrets as docs/compose.md says."""
    subprocess.run([ROOT / "deploy" / "make-secrets", folder], check=True)


def add_login(file: Path, login: str) -> None:
    """Add a name and its password to a file as docs/compose.md says; there the password is asked for."""
    name, password = login.split(":")
    hashed = subprocess.run(
        ["openssl", "passwd", "-6", "-stdin"], input=password, text=True, check=True, capture_output=True
    ).stdout.strip()
    with file.open("a") as logins:
        logins.write(f"{name}:{hashed}\n")
