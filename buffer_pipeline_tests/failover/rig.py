"""A replicated cluster on one machine: three nodes, a consensus store and a proxy, each in its
own network.
"""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psycopg

from buffer_pipeline.embedded import EmbeddedServer
from buffer_pipeline_tests.failover.configuration import (
    ADDRESSES,
    ETCD,
    HAPROXY,
    NODES,
    PATRONI,
    SCOPE,
    STORES,
)

PROGRAMS: Final = (
    "ip",
    "setpriv",
    "etcd",
    "patroni",
    "patronictl",
    "haproxy",
    "/usr/lib/postgresql/15/bin/postgres",
)
PACKAGES: Final = "patroni etcd-server haproxy iproute2 postgresql-15"
USER: Final = "postgres"
START_SECONDS_MAX: Final = 120
POLL_SECONDS: Final = 0.2
_INTERRUPTS: Final = (signal.SIGINT, signal.SIGTERM)


def why_not() -> str | None:
    """Return why no cluster can be created here, or None if it can."""
    if os.geteuid() != 0:
        return "network namespaces of a test's own need root"
    if missing := [program for program in PROGRAMS if shutil.which(program) is None]:
        return f"no {', '.join(missing)}; Debian's packages are {PACKAGES}"
    tried = f"try-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", tried], capture_output=True, text=True, check=False)
    if made.returncode != 0:
        return f"no network namespace can be made: {made.stderr.strip()}"
    run("ip", "netns", "del", tried)
    return None


def run(*command: str) -> str:
    """Run a command that must succeed; return its output."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        raise AssertionError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


@dataclass(frozen=True)
class Replica:
    """A standby, as its primary sees it."""

    node: str
    synchronous: bool


class Rig:
    """The cluster. Its namespaces are named after this process, so that two rigs do not mix."""

    def __init__(self, folder: Path, *, synchronous: bool, protocol: str) -> None:
        self.folder = folder
        self._synchronous = synchronous
        self._store = STORES[protocol]
        self._prefix = f"books{os.getpid()}-"
        self._processes: list[subprocess.Popen[bytes]] = []
        self.server = EmbeddedServer(socket_dir=folder / "sql", port=5432)
        """The current primary, through the proxy."""

    def namespace(self, host: str) -> str:
        """Return the name of a host's network namespace."""
        return self._prefix + host

    # ---- up and down

    def connect_hosts(self) -> None:
        """Create a network for each host, and a bridge between them."""
        switch = self.namespace("switch")
        run("ip", "netns", "add", switch)
        run("ip", "-n", switch, "link", "add", "bridge", "type", "bridge")
        run("ip", "-n", switch, "link", "set", "bridge", "up")
        for host, address in ADDRESSES.items():
            inside = self.namespace(host)
            run("ip", "netns", "add", inside)
            run("ip", "-n", inside, "link", "set", "lo", "up")
            run(
                "ip",
                "-n",
                inside,
                "link",
                "add",
                "eth0",
                "type",
                "veth",
                "peer",
                "name",
                host,
                "netns",
                switch,
            )
            run("ip", "-n", switch, "link", "set", host, "master", "bridge")
            run("ip", "-n", switch, "link", "set", host, "up")
            run("ip", "-n", inside, "address", "add", f"{address}/24", "dev", "eth0")
            run("ip", "-n", inside, "link", "set", "eth0", "up")

    def start(self) -> None:
        """Start everything, and wait until the primary answers and has its standbys."""
        (self.folder / "sql").mkdir()
        for folder in ("etcd", *NODES):
            (self.folder / folder).mkdir()
            shutil.chown(self.folder / folder, USER, USER)
        (self.folder / "haproxy.cfg").write_text(HAPROXY.format(folder=self.folder))
        self._start("etcd", *(word.format(folder=self.folder) for word in ETCD))
        for node in NODES:
            configuration = PATRONI.format(
                node=node,
                address=ADDRESSES[node],
                folder=self.folder,
                synchronous=str(self._synchronous).lower(),
                store=self._store,
            )
            (self.folder / f"{node}.yml").write_text(configuration)
            self.start_node(node)
        self._start("proxy", "haproxy", "-db", "-f", f"{self.folder}/haproxy.cfg", user="root")
        self.wait_until_whole()

    def start_node(self, node: str) -> None:
        """Start a node's Patroni, which starts its server."""
        self._start(node, "patroni", f"{self.folder}/{node}.yml")

    def _start(self, host: str, *command: str, user: str = USER) -> None:
        identity = (
            [] if user == "root" else ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups"]
        )
        with (self.folder / f"{host}.log").open("ab") as log:
            self._processes.append(
                subprocess.Popen(
                    ["ip", "netns", "exec", self.namespace(host), *identity, *command],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=self.folder,
                    # Ctrl-C is for the test, which then ends these processes itself.
                    start_new_session=True,
                )
            )

    def remove(self) -> None:
        """End all processes in the namespaces, and remove the namespaces."""
        for host in ADDRESSES:
            with suppress(AssertionError):
                while self.signal(host, signal.SIGKILL):
                    time.sleep(0.05)
        for process in self._processes:
            process.kill()
            process.wait()
        for host in (*ADDRESSES, "switch"):
            with suppress(AssertionError):
                run("ip", "netns", "del", self.namespace(host))

    # ---- faults

    def signal(self, host: str, number: int) -> int:
        """Send a signal to every process of a host; return their number."""
        pids = run("ip", "netns", "pids", self.namespace(host)).split()
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(int(pid), number)
        return len(pids)

    def kill_server(self, node: str) -> None:
        """Kill a node's PostgreSQL, and leave its Patroni running."""
        os.kill(int((self.folder / node / "data" / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)

    def cut(self, host: str, *, off: bool) -> None:
        """Disconnect a host from all others, or connect it again."""
        run("ip", "-n", self.namespace("switch"), "link", "set", host, "down" if off else "up")

    def split_from_store(self, node: str, *, off: bool) -> None:
        """Drop a node's packets to the consensus store, or let them pass again."""
        neighbour = ("neigh", "replace" if off else "del", ADDRESSES["etcd"])
        dead_end = ("lladdr", "02:00:00:00:00:99", "nud", "permanent") if off else ()
        run("ip", "-n", self.namespace(node), *neighbour, *dead_end, "dev", "eth0")

    def switch_over(self, to: str) -> None:
        """Ask Patroni for another primary."""
        run(
            *("ip", "netns", "exec", self.namespace(to), "patronictl", "-c", f"{self.folder}/{to}.yml"),
            *("switchover", SCOPE, "--candidate", to, "--force"),
        )

    # ---- status

    def primary(self) -> str:
        """Return the node that is the primary."""
        with self._look() as connection:
            found = connection.execute("SELECT host(inet_server_addr())").fetchone()
        assert found is not None
        return next(host for host, address in ADDRESSES.items() if address == found[0])

    def replicas(self) -> list[Replica]:
        """Return the standbys that stream from the primary."""
        with self._look() as connection:
            rows = connection.execute(
                "SELECT application_name, sync_state = 'sync' FROM pg_stat_replication"
                " WHERE state = 'streaming' ORDER BY application_name"
            ).fetchall()
        return [Replica(*row) for row in rows]

    def is_whole(self) -> bool:
        """Return True if both standbys stream, and one is synchronous if configured."""
        try:
            # PostgreSQL counts a running base backup as a standby.
            replicas = [replica for replica in self.replicas() if replica.node in NODES]
        except psycopg.OperationalError:
            return False
        synchronous = sum(replica.synchronous for replica in replicas)
        return len(replicas) == len(NODES) - 1 and synchronous == self._synchronous

    def wait_until_whole(self) -> None:
        """Wait for the primary and its standbys."""
        try:
            wait_for(self.is_whole, START_SECONDS_MAX, what="the cluster is not whole")
        except AssertionError as error:
            logs = {host: (self.folder / f"{host}.log").read_text().splitlines()[-4:] for host in ADDRESSES}
            output = "\n".join(f"{host}: {line}" for host, lines in logs.items() for line in lines)
            raise AssertionError(f"{error}\n{output}") from None

    @contextmanager
    def _look(self) -> Iterator[psycopg.Connection[Any]]:
        url = self.server.url("postgres", user="postgres").set(drivername="postgresql")
        with psycopg.connect(url.render_as_string(), autocommit=True, connect_timeout=3) as connection:
            yield connection


def wait_for(condition: Callable[[], bool], seconds_max: float, *, what: str) -> float:
    """Poll until the condition holds; return the seconds that it took."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > seconds_max:
            raise AssertionError(f"{what} after {seconds_max:.0f} s")
        time.sleep(POLL_SECONDS)
    return time.monotonic() - began


@contextmanager
def new_rig(*, synchronous: bool = True, protocol: str = "2") -> Iterator[Rig]:
    """Yield a running cluster, and always remove all of it at the end.

    `protocol` is etcd's. Debian 12's Patroni (3.0.2) is safe only with version 2.
    """
    with ExitStack() as stack:
        for number in _INTERRUPTS:
            stack.callback(signal.signal, number, signal.getsignal(number))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rig")))
        folder.chmod(0o755)
        rig = Rig(folder, synchronous=synchronous, protocol=protocol)
        stack.callback(rig.remove)
        # A second Ctrl-C does not interrupt the removal. The last callback runs first.
        for number in _INTERRUPTS:
            stack.callback(signal.signal, number, signal.SIG_IGN)
        rig.connect_hosts()
        rig.start()
        yield rig
