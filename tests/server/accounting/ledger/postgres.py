"""A PostgreSQL server for the tests, on a Unix socket and a loopback port."""

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.requirements import require

USER = "postgres"


def find_binaries() -> Path | None:
    """Return the folder of Debian's package, else that of `initdb` on the path, else None."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if folders:
        return folders[-1]
    initdb = shutil.which("initdb")
    return None if initdb is None else Path(initdb).parent


@dataclass(frozen=True)
class Cluster:
    """A database cluster.

    Attributes:
        binaries: the folder of PostgreSQL's programs.
        folder: the folder of its data, its log and its socket.
        port: the port that it listens on.
    """

    binaries: Path
    folder: Path
    port: int

    def run(self, program: str, *arguments: str) -> None:
        # PostgreSQL refuses to run as root.
        user = ["runuser", "-u", USER, "--"] if os.geteuid() == 0 else []
        command = [*user, str(self.binaries / program), *arguments]
        completed = subprocess.run(
            command, cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False
        )
        assert completed.returncode == 0, completed.stderr.decode()

    def initialize(self) -> None:
        trust = ("--auth=trust", f"--username={USER}", "--encoding=UTF8", "--no-sync")
        self.run("initdb", "--pgdata", str(self.folder / "data"), *trust)

    def start(self) -> None:
        # Tests stop the server and never the machine, so nothing needs to reach the disk.
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -k {self.folder} -c fsync=off"
        log = ("--log", str(self.folder / "log"))
        self.run("pg_ctl", "start", "-w", "-D", str(self.folder / "data"), *log, "-o", options)

    def stop(self) -> None:
        """Stop the server immediately, as in a crash."""
        self.run("pg_ctl", "stop", "-w", "-m", "immediate", "-D", str(self.folder / "data"))

    def create(self, name: str) -> str:
        """Create a database, and return its URL."""
        self.run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", USER, name)
        return f"postgresql://{USER}@127.0.0.1:{self.port}/{name}"


@contextlib.contextmanager
def cluster(binaries: Path) -> Iterator[Cluster]:
    """Run a new cluster, and remove it at the end."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    # The user that PostgreSQL runs as cannot enter pytest's own folders.
    folder = Path(tempfile.mkdtemp(prefix="proctor-postgres-"))
    try:
        if os.geteuid() == 0:
            owner = pwd.getpwnam(USER)
            os.chown(folder, owner.pw_uid, owner.pw_gid)
        started = Cluster(binaries, folder, port)
        started.initialize()
        started.start()
        try:
            yield started
        finally:
            with contextlib.suppress(AssertionError):  # a test may have stopped it
                started.stop()
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Cluster]:
    """One cluster for the whole test run."""
    binaries = find_binaries()
    require(binaries, "PostgreSQL (Debian's package postgresql)")
    assert binaries is not None
    with cluster(binaries) as started:
        yield started
