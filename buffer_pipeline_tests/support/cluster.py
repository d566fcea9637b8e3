"""A PostgreSQL for one test, which may be killed, filled and restarted."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import Connection, Engine, text

from buffer_pipeline.database import make_engine, migrate
from buffer_pipeline.embedded import API, DAGSTER, RIGHTS, EmbeddedServer
from buffer_pipeline_tests.support.databases import number_books


@dataclass(frozen=True)
class Cluster:
    """A server's data in `folder`, and its programs."""

    programs: Path
    folder: Path
    user: str | None
    """The user who runs it, because PostgreSQL refuses root."""

    @property
    def server(self) -> EmbeddedServer:
        """Its address while it runs."""
        return EmbeddedServer(socket_dir=self.folder, port=5432)

    def start(self) -> None:
        """Start the server and wait until it answers, after its recovery."""
        options = f"-c listen_addresses='' -c unix_socket_directories='{self.folder}'"
        self.control("start", "--wait", "--log", f"{self.folder}/log", "--options", options)

    def stop(self, mode: str) -> None:
        """Stop the server and wait for its end. "immediate" is a crash that does not notify clients."""
        self.control("stop", "--wait", f"--mode={mode}")

    def kill(self) -> None:
        """Kill every process of the server with SIGKILL, and wait until there is none."""
        lock = self.folder / "data" / "postmaster.pid"
        postmaster = int(lock.read_text().split()[0])
        children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
        pids = [postmaster, *map(int, children)]
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        while any(_runs(pid) for pid in pids):
            time.sleep(0.01)
        # The postmaster may be a zombie still, and a server does not start while its pid exists.
        lock.unlink()
        (self.folder / f".s.PGSQL.{self.server.port}.lock").unlink()

    def configure(self, **settings: str) -> None:
        """Write settings, which apply from the next start."""
        with (self.folder / "data" / "postgresql.conf").open("a") as conf:
            conf.writelines(f"{name} = {value}\n" for name, value in settings.items())

    def control(self, *arguments: str) -> None:
        """Run pg_ctl on the data."""
        self.run("pg_ctl", "--pgdata", f"{self.folder}/data", *arguments)

    def run(self, program: str, *arguments: str) -> str:
        """Run one of PostgreSQL's programs and return its output. Its error output is raised."""
        with tempfile.TemporaryFile("w+") as printed:
            # A file, because the server, a child of pg_ctl, would keep a pipe open.
            done = subprocess.run(
                [self.programs / program, *arguments],
                user=self.user,
                group=self.user,
                extra_groups=None if self.user is None else [],
                cwd=self.folder,
                stdout=printed,
                stderr=subprocess.STDOUT,
                check=False,
            )
            printed.seek(0)
            output = printed.read()
        assert done.returncode == 0, f"{program}: {output}"
        return output


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@contextmanager
def commits_that_wait(cluster: Cluster) -> Iterator[None]:
    """Make each commit wait for an absent standby, except with `synchronous_commit` local."""
    admin = make_engine(cluster.server.url("postgres", user="postgres"))
    with admin.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("ALTER SYSTEM SET synchronous_standby_names = 'nobody'"))
        connection.execute(text("SELECT pg_reload_conf()"))
        try:
            # The setting applies once the checkpointer has seen it, so try until a commit waits.
            with ThreadPoolExecutor(1) as thread:
                waited = False
                while not waited:
                    trying = thread.submit(_commit, admin)
                    while not trying.done() and not (waited := waiting_for_a_standby(connection) > 0):
                        pass
                connection.execute(
                    text("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
                )
            yield
        finally:
            connection.execute(text("ALTER SYSTEM RESET synchronous_standby_names"))
            connection.execute(text("SELECT pg_reload_conf()"))
    admin.dispose()


def _commit(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("SELECT pg_current_xact_id()"))
        connection.execute(text("SELECT pg_logical_emit_message(true, 'test', '')"))


def waiting_for_a_standby(connection: Connection) -> int:
    """Return the number of commits that wait for a standby."""
    waiting: int = connection.execute(
        text("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
    ).scalar_one()
    connection.rollback()  # A transaction sees only one state of pg_stat_activity.
    return waiting


@contextmanager
def tiny_disk(size_bytes: int) -> Iterator[Path]:
    """Yield a small file system that any user can write to. Skip if it cannot be created."""
    with tempfile.TemporaryDirectory() as folder:
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size_bytes},mode=0777", "tmpfs", folder],
            capture_output=True,
            text=True,
            check=False,
        )
        if mounted.returncode != 0:
            reason = f"no file system of a test's own: {mounted.stderr.strip()}"
            if os.environ.get("REQUIRE_TINY_DISK"):
                pytest.fail(reason)
            pytest.skip(reason)
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", "--lazy", folder], check=True)


def make_books(server: EmbeddedServer) -> None:
    """Create migrated, empty books on a new server, named and owned as the embedded server's are."""
    admin = make_engine(server.url("postgres", user="postgres"))
    with admin.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("CREATE ROLE buffer LOGIN CREATEDB CREATEROLE"))
        connection.execute(text("CREATE DATABASE buffer OWNER buffer"))
        engine = make_engine(server.books_url)
        migrate(engine)
        engine.dispose()
        number_books(server.books_url)
        for login in (DAGSTER, API):
            connection.execute(text(f"CREATE ROLE {login} {RIGHTS[login]}"))
    admin.dispose()


@contextmanager
def new_cluster(
    programs: Path,
    *,
    user: str | None,
    settings: Mapping[str, str] | None = None,
    wal_folder: Path | None = None,
) -> Iterator[Cluster]:
    """Yield a running server with migrated, empty books, named and owned as the embedded server's are."""
    with tempfile.TemporaryDirectory() as folder:
        if user is not None:
            shutil.chown(folder, user, user)
        cluster = Cluster(programs, Path(folder), user)
        cluster.run(
            "initdb",
            f"--pgdata={folder}/data",
            "--username=postgres",
            "--auth=trust",
            "--encoding=UTF8",
            "--locale=C.UTF-8",
            "--no-sync",
            *([] if wal_folder is None else [f"--waldir={wal_folder}", "--wal-segsize=1"]),
        )
        # Tests kill processes, never the machine.
        cluster.configure(**{"fsync": "off", "max_wal_size": "512MB", **(settings or {})})
        cluster.start()
        try:
            make_books(cluster.server)
            yield cluster
        finally:
            if (cluster.folder / "data" / "postmaster.pid").exists():
                cluster.stop("immediate")


@contextmanager
def new_standby(primary: Cluster) -> Iterator[Cluster]:
    """Yield a running hot standby of a server, with its present settings."""
    with tempfile.TemporaryDirectory() as folder:
        if primary.user is not None:
            shutil.chown(folder, primary.user, primary.user)
        standby = Cluster(primary.programs, Path(folder), primary.user)
        standby.run(
            "pg_basebackup",
            f"--dbname=host={primary.folder} port={primary.server.port} user=postgres",
            f"--pgdata={folder}/data",
            "--write-recovery-conf",
            "--checkpoint=fast",
            "--no-sync",
        )
        standby.start()
        try:
            yield standby
        finally:
            if (standby.folder / "data" / "postmaster.pid").exists():
                standby.stop("immediate")
