"""A PostgreSQL of the tests' own, on a Unix socket and a port of this machine."""

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
    """Where Debian's package puts them, or the folder of those on the path."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if folders:
        return folders[-1]
    found = shutil.which("initdb")
    return None if found is None else Path(found).parent


@dataclass(frozen=True)
class Cluster:
    """One cluster.

    Attributes:
        binaries: the folder of PostgreSQL's programs.
        folder: holds its data.
        port: where it listens.
    """

    binaries: Path
    folder: Path
    port: int

    def run(self, program: str, *arguments: str) -> None:
        # PostgreSQL will not run as root.
        user = ["runuser", "-u", USER, "--"] if os.geteuid() == 0 else []
        command = [*user, str(self.binaries / program), *arguments]
        done = subprocess.run(
            command, cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False
        )
        assert done.returncode == 0, done.stderr.decode()

    def make(self) -> None:
        trust = ("--auth=trust", f"--username={USER}", "--encoding=UTF8", "--no-sync")
        self.run("initdb", "--pgdata", str(self.folder / "data"), *trust)

    def start(self) -> None:
        # Its crashes are not the machine's, so nothing need wait for the disk.
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -k {self.folder} -c fsync=off"
        log = ("--log", str(self.folder / "log"))
        self.run("pg_ctl", "start", "-w", "-D", str(self.folder / "data"), *log, "-o", options)

    def stop(self) -> None:
        """Stop it as a crash does."""
        self.run("pg_ctl", "stop", "-w", "-m", "immediate", "-D", str(self.folder / "data"))

    def create(self, name: str) -> str:
        """The URL of a new database."""
        self.run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", USER, name)
        return f"postgresql://{USER}@127.0.0.1:{self.port}/{name}"


@contextlib.contextmanager
def cluster(binaries: Path) -> Iterator[Cluster]:
    """A running cluster, removed at the end."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    # pytest's own folders cannot be entered by the user that PostgreSQL runs as.
    folder = Path(tempfile.mkdtemp(prefix="proctor-postgres-"))
    try:
        if os.geteuid() == 0:
            owner = pwd.getpwnam(USER)
            os.chown(folder, owner.pw_uid, owner.pw_gid)
        made = Cluster(binaries, folder, port)
        made.make()
        made.start()
        try:
            yield made
        finally:
            with contextlib.suppress(AssertionError):  # a test may have stopped it
                made.stop()
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Cluster]:
    """One cluster for the whole run."""
    binaries = find_binaries()
    require(binaries, "PostgreSQL (Debian's package postgresql)")
    assert binaries is not None
    with cluster(binaries) as running:
        yield running
