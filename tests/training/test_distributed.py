"""Two processes that share a training, as two GPUs or two machines do, against one process with the whole batches."""

import csv
import os
import re
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from command_line import exit_code, only_folder, tests_path, tiny_run
from fake_corpus import ToneCorpus
from jsonargparse import Namespace
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities import rank_zero_only
from torch import nn

from audio_lrp.callbacks import ConfusionMatrixCallback, LRPCallback
from audio_lrp.data.corpora.corpus import Recording
from audio_lrp.data.datamodule import CorpusDataModule
from audio_lrp.data.loading.batch import Batch
from audio_lrp.errors import UserError
from audio_lrp.faithfulness import LRP, Faithfulness, MatchedNoise, MaxSensitivity, RelevanceMassAccuracy, Sparseness
from audio_lrp.models import Classifier
from audio_lrp.tracking.run import Run
from audio_lrp.training.processes import take_place
from audio_lrp.utils.launcher import _ALONE_IN_SLURM, forget_what_is_no_number

BATCH = 8


class UnevenCorpus(ToneCorpus):
    """16 clips to train on, whole batches; 11 to validate and 9 to test, which two processes cannot share evenly."""

    def scan(self) -> list[Recording]:
        return [
            recording
            for recording in super().scan()
            if recording.digit + 10 * recording.repetition < {"s0": 16, "s1": 9, "s2": 11}[recording.speaker]
        ]


class Normalised(nn.Sequential):
    """A waveform network without randomness; the buffers of its normalisation are exchanged in every forward pass."""

    def __init__(self, num_classes: int) -> None:
        normalisation = nn.BatchNorm1d(4, affine=False)
        normalisation.momentum = 0.0
        super().__init__(
            nn.Conv1d(1, 4, 16, stride=8), normalisation.eval(), nn.ReLU(), nn.MaxPool1d(8), nn.Flatten(),
            nn.Linear(496, num_classes),
        )  # fmt: skip

    def train(self, mode: bool = True) -> "Normalised":
        """With running statistics throughout: those of a share of a batch are not those of the batch."""
        super().train(mode)
        self[1].eval()
        return self


class Explained(Classifier):
    """Tests explanations by metrics in the test loop."""

    def __init__(self) -> None:
        # Not Adam, which makes large steps of what rounding leaves of small gradients.
        super().__init__(Normalised, 10, "waveform", partial(torch.optim.SGD, lr=0.02))
        self.faithfulness = Faithfulness(["morf", "lerf", "random"], (0, 0.1, 0.5), baseline=MatchedNoise())
        self.mass, self.sparseness = RelevanceMassAccuracy(), Sparseness()
        self.sensitivity = MaxSensitivity(LRP(), num_samples=2)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        super().test_step(batch, batch_idx)
        relevance = LRP()(self.network, batch.input, batch.label)
        self.faithfulness.update(self.network, batch.input, batch.label, relevance, index=batch.index)
        place = torch.arange(relevance.shape[-1])
        mask = (place >= batch.offset[:, None]) & (place < (batch.offset + batch.length / 2)[:, None])
        self.mass.update(relevance, mask[:, None])
        self.sparseness.update(relevance)
        self.sensitivity.update(self.network, batch.input, batch.label, index=batch.index)
        names = ("mass", "sparseness", "sensitivity")
        self.log_dict({f"test/{name}": getattr(self, name) for name in names}, batch_size=len(batch))

    def on_test_epoch_end(self) -> None:
        self.log_dict({f"test/{name}": value for name, value in self.faithfulness.compute().items()})


def train(folder: Path, processes: int, **options: Any) -> None:
    """Train and test; leave weights and all that was logged in the folder."""
    L.seed_everything(1)
    corpus = UnevenCorpus(folder.parent / "tones", speakers=3, repetitions=2)
    data = CorpusDataModule(corpus, num_folds=3, batch_size=BATCH // processes, cache_dir="beside")
    explain = LRPCallback(every_n_epochs=2, num_examples=4, num_pictures=0, fractions=(0, 0.1, 0.5), on_error="raise")
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=2,
        log_every_n_steps=1,
        logger=CSVLogger(folder, name="", version=""),
        callbacks=[explain, ConfusionMatrixCallback()],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )
    module = Explained()
    trainer.fit(module, data)
    trainer.test(module, data, verbose=False)
    if trainer.is_global_zero:
        torch.save(module.state_dict(), folder / "weights.pt")


def on_two_nodes(command: list[str], folder: Path, seconds: float = 200) -> None:
    """Run a command as on two machines, which Lightning is told of by environment variables."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    processes = []
    try:
        for node in range(2):
            environment = os.environ | meeting | {"NODE_RANK": str(node), "OMP_NUM_THREADS": "1"}
            environment["PYTHONPATH"] = tests_path()
            with (folder / f"node-{node}.log").open("w") as log:
                processes.append(subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=log))
        codes = [process.wait(timeout=seconds) for process in processes]
    finally:
        for process in processes:
            process.kill()
    logs = [(folder / f"node-{node}.log").read_text() for node in range(2)]
    assert codes == [0, 0], logs


def logged(folder: Path) -> list[dict[str, float]]:
    """Rows of numbers, in the order of the steps."""
    with (folder / "metrics.csv").open(newline="") as file:
        return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]


def test_two_processes_agree_with_one(tmp_path: Path) -> None:
    """Weights, losses, scores, confusions, metrics of explanations and the callback's scores."""
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    train(one, 1, devices=1)
    code = f"import test_distributed as t; t.train(t.Path({str(two)!r}), 2, strategy='ddp', devices=1, num_nodes=2)"
    on_two_nodes([sys.executable, "-c", code], tmp_path)
    expected, found = logged(one), logged(two)
    assert {name.partition("/")[0] for row in expected for name in row} == {
        "epoch",
        "step",
        "train",
        "val",
        "test",
        "lrp",
    }
    assert [row.keys() for row in found] == [row.keys() for row in expected]
    for row, reference in zip(found, expected, strict=True):
        for name, value in reference.items():
            tolerance = 0.0 if "accuracy" in name or "f1" in name else 1e-5
            assert row[name] == pytest.approx(value, rel=tolerance, abs=tolerance), name
    confusions = [(folder / "test" / "confusion_matrix.csv").read_text() for folder in (one, two)]
    assert confusions[0] == confusions[1]
    assert sum(int(line.rpartition(",")[2]) for line in confusions[0].splitlines()[1:]) == 9  # no clip twice
    weights, reference = (torch.load(folder / "weights.pt") for folder in (two, one))
    for name, value in reference.items():
        torch.testing.assert_close(weights[name], value, rtol=1e-4, atol=1e-6)


LEFT_BEHIND = {
    "torchrun": {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "node7", "MASTER_PORT": "29500"},
    "RANK": {"RANK": "1"},
    "LOCAL_RANK": {"LOCAL_RANK": "1"},
    "NODE_RANK": {"NODE_RANK": "1"},
    "GROUP_RANK": {"GROUP_RANK": "3"},
    "SLURM_PROCID": {"SLURM_PROCID": "1", "SLURM_LOCALID": "1", "SLURM_NODEID": "1"},
    "a shell of SLURM": {"SLURM_JOB_NAME": "bash", "SLURM_NTASKS": "4", "SLURM_PROCID": "2"},
    "one task of SLURM": {
        "SLURM_JOB_NAME": "a",
        "SLURM_NTASKS": "1",
        "SLURM_NTASKS_PER_NODE": "4",
        "SLURM_PROCID": "1",
    },
    "MPI": {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2", "PMI_RANK": "1"},
    "LSF": {
        "LSB_JOBID": "1",
        "LSB_DJOB_RANKFILE": "nowhere",
        "JSM_NAMESPACE_LOCAL_RANK": "1",
        "JSM_NAMESPACE_SIZE": "2",
    }
    | {"JSM_NAMESPACE_RANK": "1"},
    "two tasks of SLURM": {"SLURM_JOB_ID": "1", "SLURM_JOB_NAME": "train", "SLURM_NTASKS": "2", "SLURM_PROCID": "1"},
    "torchrun's own": {"TORCHELASTIC_RUN_ID": "a", "RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2"},
    "nothing": {},
}
"""What stays in the environment of a shell or a script that several processes were started from."""


@pytest.fixture
def no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [*os.environ]:
        if re.match(r"(SLURM|JSM|LSB)_|TORCHELASTIC|(.*_)?RANK$|(LOCAL_)?WORLD_SIZE$|MASTER_", name):
            monkeypatch.delenv(name)
    monkeypatch.setattr(rank_zero_only, "rank", 0)


def launched(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    """Set variables as if Lightning had been imported with them, and let the test's end remove what becomes of them."""
    for name in {**_ALONE_IN_SLURM, **variables}:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    ranks = [
        variables[name] for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK") if name in variables
    ]
    monkeypatch.setattr(rank_zero_only, "rank", int(ranks[0]) if ranks else 0)


def settings(devices: Any = 1, num_nodes: int = 1, **others: Any) -> Namespace:
    return Namespace(**{"devices": devices, "num_nodes": num_nodes, "accelerator": "cpu", "plugins": None} | others)


@pytest.mark.usefixtures("no_launcher")
class TestPlace:
    """Which of several processes this one is, asked before there is a Trainer, which would know."""

    @pytest.mark.parametrize("left", LEFT_BEHIND)
    @pytest.mark.parametrize("devices", [1, "1", [3], "3,", "auto"])
    def test_one_process_is_the_first(self, monkeypatch: pytest.MonkeyPatch, devices: Any, left: str) -> None:
        launched(monkeypatch, LEFT_BEHIND[left])
        take_place(settings(devices))
        assert rank_zero_only.rank == 0
        strategy = L.Trainer(accelerator="cpu", devices=1, strategy="ddp", logger=False).strategy
        assert (strategy.global_rank, strategy.world_size) == (0, 1)
        assert strategy.cluster_environment.main_address == "127.0.0.1"

    @pytest.mark.parametrize(
        "left",
        [name for name in LEFT_BEHIND if name not in ("torchrun", "torchrun's own", "two tasks of SLURM", "LSF")],
    )
    def test_the_one_that_starts_the_others_is_the_first(self, monkeypatch: pytest.MonkeyPatch, left: str) -> None:
        launched(monkeypatch, {} if left == "one task of SLURM" else LEFT_BEHIND[left])
        take_place(settings(2))
        assert rank_zero_only.rank == 0

    @pytest.mark.parametrize(
        ("variables", "devices", "nodes", "rank"),
        [
            ({"NODE_RANK": "1"}, 1, 2, 1),
            ({"NODE_RANK": "1"}, 2, 2, 2),
            ({"LOCAL_RANK": "1", "NODE_RANK": "0", "MASTER_PORT": "29500"}, 2, 1, 1),
            ({"TORCHELASTIC_RUN_ID": "a", "RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4"}, 2, 2, 3),
            (
                {"SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2", "SLURM_NNODES": "1"}
                | {"SLURM_PROCID": "1", "SLURM_LOCALID": "1", "SLURM_NODEID": "0"},
                2,
                1,
                1,
            ),
        ],
    )
    def test_others_are_what_their_launcher_says(
        self, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], devices: int, nodes: int, rank: int
    ) -> None:
        launched(monkeypatch, variables)
        monkeypatch.setattr(rank_zero_only, "rank", 0)
        take_place(settings(devices, nodes))
        assert rank_zero_only.rank == rank

    @pytest.mark.parametrize("left", ["two tasks of SLURM", "torchrun's own", "one task of SLURM", "torchrun"])
    def test_processes_that_train_alone_are_told_so(
        self, monkeypatch: pytest.MonkeyPatch, left: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        launched(monkeypatch, LEFT_BEHIND[left])
        take_place(settings())
        told = capsys.readouterr().err.splitlines()
        assert len(told) == (left in ("two tasks of SLURM", "torchrun's own"))
        assert all("each of them trains alone" in line and "--trainer.devices" in line for line in told)

    def test_only_the_first_machine_makes_a_folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for node, made in (("1", []), ("0", ["fit"])):
            monkeypatch.setenv("NODE_RANK", node)
            take_place(settings(1, 2))
            _ = Run(str(tmp_path), "fit").folder
            assert [path.name for path in tmp_path.iterdir()] == made

    @pytest.mark.parametrize(
        ("variables", "devices", "nodes", "remedy"),
        [
            ({"SLURM_NTASKS": "2"}, 2, 1, "SLURM for --nodes=1 --ntasks-per-node=2"),
            ({"SLURM_NTASKS": "1"}, 2, 1, "SLURM for --nodes=1 --ntasks-per-node=2"),
            ({"SLURM_NTASKS": "4", "SLURM_NTASKS_PER_NODE": "4"}, 2, 2, "SLURM for --nodes=2 --ntasks-per-node=2"),
            ({"SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2", "SLURM_NNODES": "2"}, 2, 1, "--nodes=1 --ntasks-per"),
            (
                {"SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2"},
                2,
                1,
                "no SLURM_PROCID, .* begin the command with srun",
            ),
            ({"SLURM_NTASKS": "two"}, 2, 1, "SLURM_NTASKS is 'two', which is no number: unset it"),
            (
                {"TORCHELASTIC_RUN_ID": "a", "WORLD_SIZE": "4", "RANK": "0"},
                2,
                1,
                "torchrun --nnodes=1 --nproc-per-node=2",
            ),
            (
                {"TORCHELASTIC_RUN_ID": "a", "WORLD_SIZE": "2", "RANK": "0"},
                2,
                1,
                "torchrun --nnodes=1 --nproc-per-node=2",
            ),
            ({"TORCHELASTIC_RUN_ID": "a", "WORLD_SIZE": "1"}, 2, 1, "torchrun --nnodes=1 --nproc-per-node=2"),
        ],
    )
    def test_launchers_that_start_another_number(
        self, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], devices: int, nodes: int, remedy: str
    ) -> None:
        launched(monkeypatch, variables)
        with pytest.raises(UserError, match=remedy):
            take_place(settings(devices, nodes))


@pytest.mark.usefixtures("no_launcher")
@pytest.mark.parametrize("left", ["torchrun", "SLURM_PROCID", "two tasks of SLURM", "torchrun's own", "LSF"])
def test_a_run_beside_a_launcher_is_kept_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: str) -> None:
    """Its configuration, its checkpoint and, for a second one, a folder of its own."""
    launched(monkeypatch, LEFT_BEHIND[left])
    monkeypatch.chdir(tmp_path)
    for count in (1, 2):
        assert exit_code("fit", *tiny_run(tmp_path / "tones"), "--run.root=runs") == 0
        folders = [path.parent for path in (tmp_path / "runs").glob("*/*/config.yaml")]
        assert len(folders) == count
        assert all(list(folder.glob("checkpoints/*.ckpt")) for folder in folders)


@pytest.mark.usefixtures("no_launcher")
def test_ranks_that_are_no_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lightning cannot be imported with them."""
    launched(monkeypatch, {"RANK": "1", "LOCAL_RANK": "2"})
    monkeypatch.setenv("RANK", "")
    forget_what_is_no_number()
    assert "RANK" not in os.environ
    assert os.environ["LOCAL_RANK"] == "2"


@pytest.mark.slow
def test_two_nodes_have_one_run(tmp_path: Path) -> None:
    """The command line on two machines: the first makes the run's folder, the other follows."""
    arguments = [*tiny_run(tmp_path / "tones"), "--trainer.strategy=ddp", "--trainer.num_nodes=2", "--run.root=runs"]
    pictures = ["--trainer.callbacks+=LRPCallback", "--trainer.callbacks.num_examples=4"]
    ToneCorpus(tmp_path / "tones", repetitions=1).prepare()  # recordings on a disk that both machines see
    command = [sys.executable, "-m", "audio_lrp", "fit", *arguments, *pictures, "--run.test_after_fit=true"]
    on_two_nodes(command, tmp_path)
    folder = only_folder(tmp_path / "runs")
    assert [path.name for path in (tmp_path / "runs").glob("*/*")] == [folder.name]
    assert (folder / "config.yaml").is_file()
    assert list((folder / "checkpoints").glob("*.ckpt"))
    assert list((folder / "lrp").glob("*.png"))
    outputs = [(tmp_path / f"node-{node}.log").read_text() for node in range(2)]
    assert ["test accuracy:" in text for text in outputs] == [True, False]


@pytest.mark.slow
def test_a_mistake_is_told_without_tracebacks(tmp_path: Path) -> None:
    """The first process finds it; the other loses the first."""
    arguments = [*tiny_run(tmp_path / "tones"), "--config=trainer/ddp", "--trainer.accelerator=cpu"]
    (tmp_path / "tones").mkdir()
    wrong = ["--data.corpus=AudioMNIST", f"--data.corpus.root={tmp_path / 'tones'}", "--trainer.devices=2"]
    command = [sys.executable, "-m", "audio_lrp", "fit", *arguments, *wrong]
    environment = os.environ | {"PYTHONPATH": tests_path()}
    result = subprocess.run(
        command, check=False, capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=200
    )
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    errors = [line for line in result.stderr.splitlines() if line.startswith("audio-lrp: error: ")]
    assert len(errors) == 2
    assert sum("tones holds no recordings" in line for line in errors) == 1
    assert sum("process 1 of the training ends as it has lost another" in line for line in errors) == 1
