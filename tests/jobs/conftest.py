"""The storages that a queue may lie in."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from audio_lrp.jobs import default_storage


@pytest.fixture
def url(tmp_path: Path) -> str:
    return default_storage(tmp_path)


@pytest.fixture
def postgresql() -> Iterator[str]:
    """A server of Debian's package, on a socket of its own."""
    programs = [*Path("/usr/lib/postgresql").glob("*/bin"), Path(shutil.which("pg_ctl") or "").resolve().parent]
    found = next((folder for folder in programs if (folder / "initdb").exists()), None)
    if found is None:
        pytest.skip("PostgreSQL is not installed")
    user = "postgres" if os.geteuid() == 0 else None  # the server refuses to run as root
    with TemporaryDirectory() as folder:
        if user is not None:
            shutil.chown(folder, user)

        def run(program: str, *options: str) -> None:
            command = [found / program, f"--pgdata={folder}/data", *options]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, user=user, cwd=folder)

        run("initdb", "--username=tests", "--auth=trust", "--no-sync")
        run("pg_ctl", "start", "--wait", "--log=log", f"--options=-k {folder} -h ''")
        try:
            yield f"postgresql://tests@/postgres?host={folder}"
        finally:
            run("pg_ctl", "stop", "--mode=immediate")
