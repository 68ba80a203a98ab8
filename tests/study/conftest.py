"""A corpus, a budget and a finished study, shared by the tests of studies."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import yaml
from command_line import exit_code
from in_this_process import use_this_process
from small_study import BUDGET, TRUSTED, tones_as_audiomnist, train_tiny

from audio_lrp.checkpoints import load_network
from audio_lrp.study import subject, training


@pytest.fixture(autouse=True)
def _workers(workers_in_this_process: None) -> None:
    """No study here starts processes, but for those of a command of its own."""


@pytest.fixture(autouse=True, scope="session")
def _tiny_networks_are_trusted() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subject, "load_network", partial(load_network, plugins=TRUSTED))
        yield


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tones_as_audiomnist(tmp_path_factory.mktemp("corpora") / "tones")


@pytest.fixture(scope="session")
def options(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    budget = tmp_path_factory.mktemp("budget") / "smallest.yaml"
    budget.write_text(yaml.safe_dump(BUDGET))
    return [f"--corpus={corpus}", f"--budget={budget}"]


@pytest.fixture(scope="session")
def study(options: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished study of one fold: AlexNet's genders and AudioNet's digits."""
    folder = tmp_path_factory.mktemp("studies") / "study"
    with pytest.MonkeyPatch.context() as patch:
        use_this_process(patch)
        patch.setattr(training, "run_lightning", train_tiny)
        for network, task in (("alexnet", "gender"), ("audionet", "digit")):
            chosen = [f"--networks={network}", f"--tasks={task}", "--folds=1", f"--output={folder}"]
            assert exit_code("study", *options, *chosen) == 0
    return folder
