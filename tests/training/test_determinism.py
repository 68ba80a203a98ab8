"""The same seed on the same machine gives the same weights and the same logged numbers, twice."""

from pathlib import Path

import pytest
import torch
from command_line import exit_code, only_checkpoint, only_folder, tiny_run


def trained(corpus: Path, root: str, seed: int) -> tuple[dict[str, torch.Tensor], str, dict[str, bytes]]:
    """Weights, logged numbers and pictures of a training with dropout, augmentation, mixup and explanations."""
    options = [option for option in tiny_run(corpus) if "logger" not in option and "max_epochs" not in option]
    augmentations = ("SpeedPerturbation", "RandomEqualizer", "AdditiveNoise", "PolarityInversion")
    arguments = [
        *options, f"--run.root={root}", f"--seed_everything={seed}", "--trainer.max_epochs=2", "--model.mixup=0.4",
        "--trainer.logger=CSVLogger", "--run.test_after_fit=true",
        *(f"--data.augmentations+={name}" for name in augmentations),
        "--trainer.callbacks+=LRPCallback", "--trainer.callbacks.num_examples=10",
        "--trainer.callbacks.num_pictures=2", "--trainer.callbacks.fractions=[0,0.1,1]",
    ]  # fmt: skip
    assert exit_code("fit", *arguments) == 0
    folder = only_folder(Path(root))
    weights = torch.load(only_checkpoint(folder), weights_only=True)["state_dict"]
    (numbers,) = folder.rglob("metrics.csv")
    pictures = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.png")}
    return weights, numbers.read_text(), pictures


@pytest.mark.slow
def test_same_seed_same_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    weights, numbers, pictures = trained(tmp_path / "corpus", "first", seed=3)
    again, same_numbers, same_pictures = trained(tmp_path / "corpus", "second", seed=3)
    assert all(torch.equal(weights[name], again[name]) for name in weights)
    assert "test/accuracy" in numbers
    assert numbers == same_numbers
    assert len(pictures) > 2
    assert pictures == same_pictures
    other, *_ = trained(tmp_path / "corpus", "third", seed=4)
    assert not all(torch.equal(weights[name], other[name]) for name in weights)
