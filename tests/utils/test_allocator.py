"""Keeping freed memory: that the system need not clear the same pages again and again."""

import os
import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only the GNU C library can be told")

FAULTS = """
import resource
import numpy
from audio_lrp.utils.allocator import keep_freed_memory, keeps_freed_memory

assert not keeps_freed_memory()
if {keep}:
    keep_freed_memory()
for _ in range(10):
    numpy.empty(2**26, dtype=numpy.uint8)[:] = 1
    if _ == 0:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
print(keeps_freed_memory(), resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
"""Nine times 64 MB, more than the GNU C library's threshold grows to, after a first time."""


def faults(keep: bool, **variables: str) -> tuple[str, int]:
    """Whether memory is kept, and the page faults of asking for the same again."""
    untold = {name: value for name, value in os.environ.items() if "MALLOC" not in name and name != "GLIBC_TUNABLES"}
    command = [sys.executable, "-c", FAULTS.format(keep=keep)]
    output = subprocess.run(command, check=True, capture_output=True, text=True, env=untold | variables).stdout
    kept, count = output.split()
    return kept, int(count)


def test_freed_memory_is_kept() -> None:
    kept, few = faults(keep=True)
    assert kept == "True"
    assert few < 20
    _, many = faults(keep=False)
    assert many > 100


@pytest.mark.parametrize("name", ["MALLOC_ARENA_MAX", "GLIBC_TUNABLES"])
def test_who_tunes_the_allocator_is_left_alone(name: str) -> None:
    value = {"MALLOC_ARENA_MAX": "4", "GLIBC_TUNABLES": "glibc.malloc.arena_max=4"}[name]
    assert faults(keep=True, **{name: value})[0] == "False"
