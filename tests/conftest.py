"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:
    # A worker a core, of one thread each: torch's threads help little where networks are tiny, and would be too many.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

collect_ignore = ["benchmarks", "plugin"]  # run by hand; installed by a test
collect_ignore_glob = ["*/conftest.py"]  # no doctests there, and modules of one name

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real recordings beside the checkout; tests that need it are skipped where it is missing."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no real recordings at {SHARED_DATA}")
    return SHARED_DATA


@pytest.fixture
def workers_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the workers of studies and sweeps work in the test's own process."""
    from in_this_process import use_this_process

    use_this_process(monkeypatch)
