"""kill -9 at random moments: the next start resumes, nothing half-written counts, the result is the undisturbed one."""

import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import explainable as explaining
import interruptions
import numpy as np
import pytest
import torch
import yaml
from command_line import tiny_run
from fake_corpus import ToneCorpus
from forking_server import ForkingServer
from small_study import BUDGET, tones_as_audiomnist
from small_sweep import LEVEL, trials, write_sweep

from audio_lrp.checkpoints import read_checkpoint
from audio_lrp.data.packing.cache import intact

pytestmark = pytest.mark.slow

KILLS = {"cache": 8, "training": 8, "explain": 5, "study": 5, "sweep": 4}
"""How many kills each must survive."""


@pytest.fixture(scope="module")
def server() -> Iterator[ForkingServer]:
    with ForkingServer() as server:
        yield server


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def files(folder: Path) -> dict[str, bytes]:
    """Content of all files below a folder, by their places."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def survive(
    server: ForkingServer,
    kind: str,
    command: Callable[[], list[str]],
    begin_anew: Callable[[], None],
    check: Callable[[], None],
    check_end: Callable[[], None],
) -> None:
    """Run a command again and again, killed at random moments, until it has survived its kills and come to its end.

    Args:
        server: runs it.
        kind: which of `KILLS`.
        command: the arguments that resume from what is there.
        begin_anew: removes what is there.
        check: looks at what a kill has left.
        check_end: looks at the result, after each run that came to its end.
    """
    moments = random.Random(kind)
    begin_anew()
    code, duration = server.run(command())
    assert code == 0, Path("output.log").read_text()
    check_end()
    begin_anew()
    kills = ends = 0
    while kills < KILLS[kind]:
        # Soon after the start nothing is written yet: half of the kills come in the second half.
        code, _ = server.run(
            command(), kill_after=duration * moments.choice((0, 0.5)) + duration * moments.random() / 2
        )
        if code == -9:
            kills += 1
            check()
        else:
            assert code == 0, Path("output.log").read_text()
            ends += 1
            check_end()
            begin_anew()
    code, _ = server.run(command())
    assert code == 0, Path("output.log").read_text()
    check_end()
    print(f"{kind}: {kills} kills survived, {ends + 1} runs came to their end among them")


def test_there_are_enough() -> None:
    assert sum(KILLS.values()) >= 30


def test_cache(server: ForkingServer) -> None:
    count = 1020  # enough for processes of their own
    ToneCorpus("corpus", repetitions=count // 60).prepare()
    undisturbed: dict[str, bytes] = {}

    def caches() -> list[Path]:
        return [path for path in Path("caches").glob("ToneCorpus-*") if path.suffix != ".building"]

    def check_end() -> None:
        (folder,) = caches()
        assert intact(folder, count)
        assert files(folder) == undisturbed or not undisturbed
        undisturbed.update(files(folder))
        assert json.loads(Path("caches/signatures.json").read_text()).popitem()[1] == folder.name
        assert not list(Path("caches").glob("*.building"))

    command = [option for option in tiny_run(Path("corpus")) if "repetitions" not in option and "cache" not in option]
    command += [f"--data.corpus.repetitions={count // 60}", "--data.cache_dir=caches", "--trainer.fast_dev_run=1"]
    survive(
        server,
        "cache",
        lambda: ["fit", *command],
        lambda: shutil.rmtree("caches", ignore_errors=True),
        lambda: [pytest.fail(f"{folder} is cut off") for folder in caches() if not intact(folder, count)],
        check_end,
    )


def test_training(server: ForkingServer) -> None:
    Path("augmented.yaml").write_text(interruptions.AUGMENTATIONS)
    options = interruptions.options(Path("corpus").absolute(), interruptions.EVERY_STEP)
    undisturbed: list[Path] = []

    def command() -> list[str]:
        """Resume the run that has a checkpoint, or begin one."""
        for checkpoint in Path("runs").glob("*/*/checkpoints/last.ckpt"):
            return ["fit", f"--config={checkpoint.parents[1]}/config.yaml", "--ckpt_path=last"]
        return ["fit", *options]

    def check() -> None:
        for path in Path("runs").rglob("*.ckpt"):
            assert read_checkpoint(path)["global_step"] > 0

    def check_end() -> None:
        check()
        (end,) = Path("runs").rglob("end.ckpt")
        if not undisturbed:
            undisturbed.append(shutil.copytree(end.parent, Path("undisturbed")))
        interruptions.assert_same_end(end.parent, undisturbed[0])

    survive(server, "training", command, lambda: shutil.rmtree("runs", ignore_errors=True), check, check_end)


def test_explain(server: ForkingServer) -> None:
    torch.manual_seed(0)
    network = explaining.checkpoint(Path("a.ckpt"), explaining.WaveformNetwork(2), "waveform", 2)
    for number in range(3):
        explaining.tone(Path(f"in/{number}.wav"), 1.2, frequency=300 + 100 * number)
    command = ["explain", f"--checkpoint={network}", "in", "--output=out"]
    undisturbed: dict[str, bytes] = {}

    def check_end() -> None:
        found = files(Path("out"))
        assert found == undisturbed or not undisturbed
        undisturbed.update(found)
        assert not list(Path.cwd().glob(".out.*"))  # what killed processes had left is gone

    survive(
        server,
        "explain",
        lambda: command,
        lambda: shutil.rmtree("out", ignore_errors=True),
        lambda: check_end() if Path("out").exists() else None,
        check_end,
    )


def test_study(server: ForkingServer) -> None:
    corpus = tones_as_audiomnist(Path("tones"))
    Path("budget.yaml").write_text(yaml.safe_dump(BUDGET))
    command = ["study", f"--corpus={corpus}", "--budget=budget.yaml", "--output=study", "--networks=audionet"]
    command += ["--folds=0"]
    undisturbed: dict[str, bytes] = {}

    def check() -> None:
        for path in Path("study").rglob("*"):
            if path.name.startswith("."):
                continue
            if path.suffix == ".ckpt":
                read_checkpoint(path)
            elif path.suffix == ".npz":
                with np.load(path) as arrays:
                    assert all(array.size for array in arrays.values())
            elif path.suffix == ".json":
                json.loads(path.read_text())

    def check_end() -> None:
        check()
        assert len(list(Path("study/cells").glob("*/result.json"))) == 2
        tables = files(Path("study/tables"))
        assert tables == undisturbed or not undisturbed
        undisturbed.update(tables)

    survive(server, "study", lambda: command, lambda: shutil.rmtree("study", ignore_errors=True), check, check_end)


def test_sweep(server: ForkingServer) -> None:
    levels = [number / 100 for number in range(50, 56)]
    corpus = Path("corpus").absolute()
    ToneCorpus(corpus, repetitions=1).prepare()
    write_sweep(corpus, levels, early_terminate=None)

    def check() -> None:
        for path in Path("runs").rglob("*.ckpt"):
            read_checkpoint(path)

    def check_end() -> None:
        check()
        rows = trials()
        assert sorted(float(row[LEVEL]) for row in rows) == levels
        assert all(row["state"] == "complete" and row["score"] == row[LEVEL] for row in rows)
        assert "score 0.55" in Path("runs/sweeps/levels/best.yaml").read_text().splitlines()[0]

    survive(
        server,
        "sweep",
        lambda: ["sweep", "levels.yaml"],
        lambda: shutil.rmtree("runs", ignore_errors=True),
        check,
        check_end,
    )
