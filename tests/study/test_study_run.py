"""Runs of a study: what is done once, resumed, repeated or refused, in this process and in several."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from command_line import exit_code
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial
from small_study import BUDGET, read_steps, table, train_tiny
from waiting import wait_until

from audio_lrp.jobs.queue import ENDED, SUPERVISOR, SURPLUS, WORKER
from audio_lrp.study import training
from audio_lrp.study.recipe import read_recipe
from audio_lrp.utils.processes import has_ended, process_name


class TestRunning:
    def test_a_finished_cell_is_not_run_again(
        self, study: Path, options: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(training, "run_lightning", None)  # not to be called
        before = (study / "cells" / "alexnet-gender-fold1" / "result.json").stat().st_mtime_ns
        chosen = ["--networks=alexnet", "--tasks=gender", "--folds=1", f"--output={study}"]
        assert exit_code("study", *options, *chosen) == 0
        assert (study / "cells" / "alexnet-gender-fold1" / "result.json").stat().st_mtime_ns == before
        output = capsys.readouterr().out
        assert "test accuracy" in output
        assert "95.9 ± 2.9" in output

    def test_of_a_finished_cell_the_best_checkpoint_alone_is_kept(self, study: Path) -> None:
        kept = sorted(path.name for path in study.glob("cells/*/checkpoints/*"))
        assert kept == ["best.ckpt", "best.ckpt"]

    def test_a_begun_cell_is_resumed_from_its_last_checkpoint(
        self, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """The first call is interrupted after two of four steps; here all test clips are explained."""
        budget = tmp_path / "all.yaml"
        budget.write_text(yaml.safe_dump(BUDGET | {"explained_clips": None}))
        options = [f"--corpus={corpus}", f"--budget={budget}"]
        calls: list[list[str]] = []

        def interrupted_once(arguments: list[str]) -> None:
            calls.append(arguments)
            if len(calls) == 1:
                train_tiny([*arguments, "--trainer.max_steps=2"])
                raise KeyboardInterrupt
            return train_tiny(arguments)

        monkeypatch.setattr(training, "run_lightning", interrupted_once)
        chosen = ["--networks=alexnet", "--tasks=digit", "--folds=0", f"--output={tmp_path / 'study'}"]
        assert exit_code("study", *options, *chosen) == 130
        assert "error: interrupted; the same command resumes the study\n" in capsys.readouterr().err
        cell = tmp_path / "study" / "cells" / "alexnet-digit-fold0"
        assert not (cell / "result.json").exists()
        assert exit_code("study", *options, *chosen) == 0
        assert calls[1][-1] == f"--ckpt_path={cell / 'checkpoints' / 'last.ckpt'}"
        first, second = (read_steps(path) for path in sorted(cell.glob("training/*/metrics.csv")))
        assert (first, second) == ({1}, {3})  # validated after two steps and after four
        assert json.loads((cell / "result.json").read_text())["steps"] == 4
        with np.load(cell / "perturbation.npz") as outcomes:
            assert outcomes["accuracy"].shape == (5, 20, len(BUDGET["fractions"]))

    def test_averaged_weights_are_kept_and_resumed(
        self, corpus: Path, options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The best checkpoint holds what was validated; the last one shows that the average is resumed."""
        decay = 0.5
        average = {"class_path": "EMAWeightAveraging", "init_args": {"decay": decay}}
        read = read_recipe
        cell = tmp_path / "study" / "cells" / "audionet-digit-fold0"

        def averaging(name: str) -> dict[str, Any]:
            recipe = read(name)
            shipped = "WeightAveragingCallback"  # its decay is not constant: slower to check by hand
            others = (item for item in recipe["trainer"]["callbacks"] if item["class_path"] != shipped)
            recipe["trainer"]["callbacks"] = [average, *others]
            return recipe

        def interrupted_once(arguments: list[str]) -> None:
            watched = [*arguments, "--trainer.callbacks+=small_study.Weights"]
            if "--ckpt_path" not in arguments[-1]:
                train_tiny([*watched, "--trainer.max_steps=2"])
                raise KeyboardInterrupt
            code = train_tiny(watched)
            shutil.copy(cell / "checkpoints" / "last.ckpt", tmp_path)  # the study removes it
            return code

        def assert_averaged(checkpoint: dict[str, Any]) -> None:
            numbers = range(1, checkpoint["global_step"] + 1)
            steps = [torch.load(cell / "weights" / f"{number}.pt", weights_only=True) for number in numbers]
            for name, last in steps[-1].items():
                mean = steps[0][name]
                for weights in steps[1:]:
                    mean = decay * mean + (1 - decay) * weights[name]
                saved = checkpoint["state_dict"][f"network.{name}"]
                torch.testing.assert_close(saved, mean, rtol=1e-5, atol=1e-7)
                assert (saved - last).abs().max() > 1e-5

        monkeypatch.setattr(training, "read_recipe", averaging)
        monkeypatch.setattr(training, "run_lightning", interrupted_once)
        chosen = ["--networks=audionet", "--tasks=digit", "--folds=0", f"--output={tmp_path / 'study'}"]
        assert exit_code("study", *options, *chosen) == 130
        assert exit_code("study", *options, *chosen) == 0
        last = torch.load(tmp_path / "last.ckpt", weights_only=True)
        assert last["global_step"] == 4
        assert_averaged(last)
        best = torch.load(cell / "checkpoints" / "best.ckpt", weights_only=True)
        assert_averaged(best)
        assert not {"optimizer_states", "current_model_state"} & best.keys()

    def test_a_damaged_last_checkpoint_is_not_resumed_from(
        self, options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        last = tmp_path / "study" / "cells" / "alexnet-digit-fold0" / "checkpoints" / "last.ckpt"
        seen: list[list[str]] = []

        def fails(arguments: list[str]) -> None:
            seen.append(arguments)
            last.parent.mkdir(exist_ok=True)
            last.write_bytes(b"half a checkpoint")
            raise RuntimeError

        monkeypatch.setattr(training, "run_lightning", fails)
        for _ in range(2):
            chosen = ["--networks=alexnet", "--tasks=digit", "--folds=0", f"--output={tmp_path / 'study'}"]
            assert exit_code("study", *options, *chosen) == 1
        assert len(seen) == 2
        assert not any("ckpt_path" in argument for argument in seen[1])

    def test_a_cell_is_finished_only_with_all_its_steps(
        self, options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Whatever ended the training, and although a best checkpoint is there."""
        monkeypatch.setattr(
            training, "run_lightning", lambda arguments: train_tiny([*arguments, "--trainer.max_steps=2"])
        )
        chosen = ["--networks=audionet", "--tasks=digit", "--folds=0", f"--output={tmp_path / 'study'}"]
        assert exit_code("study", *options, *chosen) == 1
        cell = tmp_path / "study" / "cells" / "audionet-digit-fold0"
        reason = json.loads((cell / "failure.json").read_text())["reason"]
        assert reason == "TrainingFailedError: it ended after 2 of 4 steps"
        assert not (cell / "result.json").exists()
        monkeypatch.setattr(training, "run_lightning", train_tiny)
        assert exit_code("study", *options, *chosen) == 0
        assert json.loads((cell / "result.json").read_text())["steps"] == 4
        assert max(step for path in cell.glob("training/*/metrics.csv") for step in read_steps(path)) == 3

    @pytest.mark.parametrize("queue", [True, False])
    def test_results_tell_what_is_finished(
        self, study: Path, options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, queue: bool
    ) -> None:
        """Of two finished cells the one whose folder was removed is trained again, with a queue or without."""
        copy = Path(shutil.copytree(study, tmp_path / "study"))
        if not queue:
            (copy / "queue.log").unlink()
        shutil.rmtree(copy / "cells" / "audionet-digit-fold1")
        trained: list[str] = []

        def train(arguments: list[str]) -> None:
            trained.append(Path(arguments[1]).parent.name)
            train_tiny(arguments)

        monkeypatch.setattr(training, "run_lightning", train)
        for network, task in (("audionet", "digit"), ("alexnet", "gender")):
            chosen = [f"--networks={network}", f"--tasks={task}", "--folds=1", f"--output={copy}"]
            assert exit_code("study", *options, *chosen) == 0
        assert trained == ["audionet-digit-fold1"]

    def test_a_cell_that_fails_takes_no_other_down(
        self,
        study: Path,
        options: list[str],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        def fails(arguments: list[str]) -> None:
            raise MemoryError("out of memory")

        monkeypatch.setattr(training, "run_lightning", fails)
        chosen = ["--tasks=gender", "--folds=0", f"--output={tmp_path / 'study'}"]
        assert exit_code("study", *options, *chosen) == 1
        message = capsys.readouterr().err
        assert "2 of 2 cells failed" in message
        assert "MemoryError: out of memory" in message
        assert not list(tmp_path.glob("study/cells/*/result.json"))
        cell = tmp_path / "study" / "cells" / "alexnet-gender-fold0"
        assert "out of memory" in json.loads((cell / "failure.json").read_text())["reason"]
        assert "Traceback" in (cell / "cell.log").read_text()
        # The next call tries again: here with a training that is already there.
        os.link(study / "cells/alexnet-gender-fold1/checkpoints/best.ckpt", tmp_path / "best.ckpt")

        def succeeds(arguments: list[str]) -> None:
            (cell / "checkpoints").mkdir()
            (tmp_path / "best.ckpt").rename(cell / "checkpoints" / "best.ckpt")
            state = {"ModelCheckpoint": {"monitor": "val/accuracy", "best_model_score": torch.tensor(0.5)}}
            torch.save({"state_dict": {}, "callbacks": state, "global_step": 4}, cell / "checkpoints" / "last.ckpt")

        monkeypatch.setattr(training, "run_lightning", succeeds)
        assert exit_code("study", *options, *chosen, "--networks=alexnet") == 0
        assert not (cell / "failure.json").exists()
        assert json.loads((cell / "result.json").read_text())["validation_accuracy"] == 0.5


@pytest.mark.slow
class TestProcesses:
    """With workers in processes of their own, and networks of millions of weights."""

    def command(self, options: list[str], study: Path, *more: str) -> list[str]:
        return [sys.executable, "-m", "audio_lrp", "study", *options, f"--output={study}", *more]

    @pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
    def test_ended_in_the_middle(self, options: list[str], tmp_path: Path, number: signal.Signals) -> None:
        """Nothing keeps writing, and the same command resumes from the last checkpoint."""
        budget = tmp_path / "longer.yaml"
        budget.write_text(yaml.safe_dump(BUDGET | {"steps": {"alexnet_gender": 20}, "validate_every": 2}))
        study = tmp_path / "study"
        command = self.command([options[0], f"--budget={budget}"], study, "--tasks=gender", "--folds=0")
        checkpoint = study / "cells" / "alexnet-gender-fold0" / "checkpoints" / "last.ckpt"
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as first:
            wait_until(checkpoint.exists)
            first.send_signal(number)
            error = first.communicate()[1]
        if number == signal.SIGTERM:
            assert first.returncode == 143
            assert error.endswith("ended by SIGTERM; the same command resumes the study\n")
        (worker,) = {trial.user_attrs[WORKER] for trial in attempts(study)}
        wait_until(lambda: has_ended(worker))
        assert not list(study.rglob("result.json"))
        done = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        assert "test accuracy" in done
        starts = [min(read_steps(path)) for path in sorted(study.rglob("metrics.csv"))]
        assert len(starts) == 2
        assert starts[0] == 1 < starts[1]

    def test_workers_share_the_cells(self, options: list[str], tmp_path: Path) -> None:
        """Of two commands at once, as on two machines, the first with two workers of which one is killed."""
        study = tmp_path / "study"
        (tmp_path / "mine.yaml").write_text("01/4_01_0.wav: a cough\n")
        more = ["--folds", "0", "1", "--networks=alexnet", f"--exclude={tmp_path / 'mine.yaml'}"]
        with (
            subprocess.Popen(self.command(options, study, *more, "--workers=2")) as first,
            subprocess.Popen(self.command(options, study, *more)) as second,
        ):
            wait_until(lambda: len(list(study.glob("workers/*.log"))) == 3)
            wait_until(
                lambda: any(trial.user_attrs[SUPERVISOR] == process_name(first.pid) for trial in attempts(study))
            )
            mine = [trial for trial in attempts(study) if trial.user_attrs[SUPERVISOR] == process_name(first.pid)]
            os.kill(int(mine[0].user_attrs[WORKER].rsplit("-", 2)[1]), signal.SIGKILL)
            assert first.wait() == second.wait() == 0
        found = [trial for trial in attempts(study) if trial.user_attrs.get(ENDED) != SURPLUS]
        assert Counter(trial.user_attrs.get(ENDED, trial.state.name) for trial in found) == {"COMPLETE": 4, "died": 1}
        cells = [f"alexnet-{task}-fold{fold}" for fold in (0, 1) for task in ("digit", "gender")]
        assert sorted(trial.user_attrs["job"] for trial in found if trial.state.name == "COMPLETE") == sorted(cells)
        assert sorted(row["clips"] for row in table(study, "accuracy")) == [19, 19, 20, 20]

    def test_a_database_in_the_folders_place(self, options: list[str], tmp_path: Path) -> None:
        chosen = ["--folds=0", "--networks=audionet", "--tasks=digit", f"--storage=sqlite:///{tmp_path}/queue.db"]
        subprocess.run(self.command(options, tmp_path / "study", *chosen), check=True)
        assert len(table(tmp_path / "study", "accuracy")) == 1
        assert not (tmp_path / "study" / "queue.log").exists()


def attempts(study: Path) -> list[FrozenTrial]:
    """The attempts at the cells of a study, as its queue has them."""
    storage = JournalStorage(JournalFileBackend(str(study / "queue.log")))
    return storage.get_all_trials(storage.get_study_id_from_name(study.name))
