"""Claims on cells: never two holders, and none that outlives its process."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from audio_lrp.study import claims
from audio_lrp.study.claims import ClaimLostError, is_held, take

CONTENDER = """
import sys, time
from pathlib import Path
from audio_lrp.study.claims import take
root = Path(sys.argv[1])
while not (root / "go").exists():
    time.sleep(0.001)
for number in range(40):
    claim = take(root / f"cell{number}")
    if claim is not None:
        (root / f"cell{number}" / f"taken-{sys.argv[2]}").touch()
"""


def make_void(claim: Path) -> None:
    """As if its holder, on another machine, had given no sign of life for long."""
    claim.write_text(json.dumps({"machine": "elsewhere", "process": 1, "started": "1"}))
    long_ago = time.time() - claims.VOID_SECONDS - 5
    os.utime(claim, (long_ago, long_ago))


@pytest.mark.parametrize("first", ["free", "void"])
def test_of_many_who_try_at_once_one_succeeds(tmp_path: Path, first: str) -> None:
    if first == "void":
        for number in range(40):
            (tmp_path / f"cell{number}").mkdir()
            (tmp_path / f"cell{number}" / "claim-0007.json").touch()
            make_void(tmp_path / f"cell{number}" / "claim-0007.json")
    command = [sys.executable, "-c", CONTENDER + "\nsys.stdin.read()", str(tmp_path)]  # holds what it has to the end
    contenders = [subprocess.Popen([*command, str(number)], stdin=subprocess.PIPE) for number in range(5)]
    (tmp_path / "go").touch()
    deadline = time.monotonic() + 300  # five interpreters start: seconds, or minutes on a busy machine
    while len(list(tmp_path.glob("*/taken-*"))) < 40 and time.monotonic() < deadline:
        time.sleep(0.05)
    taken = [len(list((tmp_path / f"cell{number}").glob("taken-*"))) for number in range(40)]  # while all hold theirs
    for contender in contenders:
        contender.communicate(timeout=60)
    assert taken == [1] * 40


def test_a_released_cell_is_free(tmp_path: Path) -> None:
    with take(tmp_path / "cell") as claim:
        assert is_held(tmp_path / "cell")
        assert take(tmp_path / "cell") is None
        claim.check()
    assert not is_held(tmp_path / "cell")
    again = take(tmp_path / "cell")
    assert again.path.name == "claim-0002.json"
    again.release()


def test_a_process_that_was_killed_holds_nothing(tmp_path: Path) -> None:
    script = "import sys; from pathlib import Path; from audio_lrp.study.claims import take; take(Path(sys.argv[1])); "
    command = [sys.executable, "-c", f"{script}print(flush=True); sys.stdin.read()", str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        holder.stdout.readline()
        assert take(tmp_path) is None
        holder.kill()
        time.sleep(0.2)
        assert not is_held(tmp_path)  # also while nobody has asked for its exit code
    take(tmp_path).release()


def test_another_machine_holds_until_it_is_silent_for_long(tmp_path: Path) -> None:
    path = tmp_path / "claim-0001.json"
    path.touch()  # not yet written
    assert is_held(tmp_path)
    path.write_text(json.dumps({"machine": "elsewhere", "process": os.getpid(), "started": "0"}))
    assert is_held(tmp_path)
    assert take(tmp_path) is None
    make_void(path)
    assert not is_held(tmp_path)


def test_a_time_in_the_future_holds_nothing(tmp_path: Path) -> None:
    """A machine whose clock was wrong has died; by the clock as it is now its claim would hold for years."""
    path = tmp_path / "claim-0001.json"
    make_void(path)
    os.utime(path, (time.time() + 1e8, time.time() + 1e8))
    assert not is_held(tmp_path)
    with take(tmp_path) as claim:
        assert claim.path.name == "claim-0002.json"
        os.utime(claim.path, (time.time() + 60, time.time() + 60))  # clocks that differ a little
        assert is_held(tmp_path)


def test_a_heart_beats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "HEARTBEAT_SECONDS", 0.01)
    claim = take(tmp_path)
    os.utime(claim.path, (1000, 1000))
    deadline = time.monotonic() + 10
    while claim.path.stat().st_mtime == 1000 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert claim.path.stat().st_mtime > time.time() - 60
    claim.release()
    assert not is_held(tmp_path)  # no beat after the release


def test_who_was_suspended_too_long_learns_of_it(tmp_path: Path) -> None:
    claim = take(tmp_path)
    make_void(claim.path)
    successor = take(tmp_path)
    successor.check()
    with pytest.raises(ClaimLostError, match="taken over"):
        claim.check()
    claim.release()  # gives up its own claim, not the successor's
    successor.check()
    assert is_held(tmp_path)
    successor.release()


def test_a_number_used_again_is_another_process(tmp_path: Path) -> None:
    claim = take(tmp_path)
    holder = json.loads(claim.path.read_text())
    if not holder["machine"]:
        pytest.skip("this system does not tell when processes started")
    claim.path.write_text(json.dumps(holder | {"started": "1"}))
    assert not is_held(tmp_path)
    claim.release()
