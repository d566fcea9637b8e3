"""A PostgreSQL of a test's own: one that may be killed, filled and started again."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import text

from buffer_pipeline.database import make_engine, migrate
from buffer_pipeline.embedded import DAGSTER, EmbeddedServer


@dataclass(frozen=True)
class Cluster:
    """The data of a server in `folder`, and the programs that it is run with."""

    programs: Path
    folder: Path
    user: str | None
    """Who runs it: PostgreSQL refuses root."""

    @property
    def server(self) -> EmbeddedServer:
        """Where it answers while it runs."""
        return EmbeddedServer(socket_dir=self.folder, port=5432)

    def start(self) -> None:
        """Start the server and wait until it answers, behind its recovery."""
        options = f"-c listen_addresses='' -c unix_socket_directories='{self.folder}'"
        self.control("start", "--wait", "--log", f"{self.folder}/log", "--options", options)

    def stop(self, mode: str) -> None:
        """Stop the server and wait for its end: "immediate" is a crash, without a word to its clients."""
        self.control("stop", "--wait", f"--mode={mode}")

    def control(self, *arguments: str) -> None:
        """Run pg_ctl on the data."""
        self.run("pg_ctl", "--pgdata", f"{self.folder}/data", *arguments)

    def run(self, program: str, *arguments: str) -> str:
        """Run one of PostgreSQL's programs and return what it printed, which is its complaint if it fails."""
        with tempfile.TemporaryFile("w+") as printed:
            # A file: the server, which is pg_ctl's child, would keep a pipe open.
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
            said = printed.read()
        assert done.returncode == 0, f"{program}: {said}"
        return said


@contextmanager
def tiny_disk(size_bytes: int) -> Iterator[Path]:
    """Yield a file system of a test's own, for any user; skip where nobody may make one."""
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
        with (cluster.folder / "data" / "postgresql.conf").open("a") as conf:
            # What is killed here is processes, never the machine.
            conf.writelines(
                f"{name} = {value}\n" for name, value in {"fsync": "off", **(settings or {})}.items()
            )
        cluster.start()
        try:
            admin = make_engine(cluster.server.url("postgres", user="postgres"))
            with admin.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                connection.execute(text("CREATE ROLE buffer LOGIN CREATEDB CREATEROLE"))
                connection.execute(text("CREATE DATABASE buffer OWNER buffer"))
                engine = make_engine(cluster.server.books_url)
                migrate(engine)
                engine.dispose()
                connection.execute(text(f"CREATE ROLE {DAGSTER} LOGIN IN ROLE buffer_releaser"))
            admin.dispose()
            yield cluster
        finally:
            if (cluster.folder / "data" / "postmaster.pid").exists():
                cluster.stop("immediate")
