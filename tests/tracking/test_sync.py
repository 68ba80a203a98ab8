"""Runs that were moved to another folder, as if to another machine, and uploaded there."""

import os
from pathlib import Path

import numpy as np
import pytest
import wandb
from command_line import exit_code
from wandb_server import WandbServer

from audio_lrp.tracking.moved_run import MissingFilesError, find_moved_files
from audio_lrp.tracking.wandb_file import HEADER, read_records, written

RUN = Path("run", "wandb")


@pytest.fixture(scope="module")
def moved_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an offline run that was made elsewhere: a picture inside a table, and a file of its own."""
    here, there = tmp_path_factory.mktemp("here"), tmp_path_factory.mktemp("there")
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("WANDB_")]:
            patch.delenv(name)
        patch.setenv("HOME", str(here))
        patch.setenv("WANDB_DATA_DIR", str(here / RUN))
        (here / "run").mkdir()
        (here / "run" / "weights").write_bytes(bytes(100_000))
        with wandb.init(project="tests", mode="offline", dir=here / "run") as run:
            picture = wandb.Image(np.zeros((8, 8, 3), np.uint8))
            run.log({"table": wandb.Table(columns=["picture"], data=[[picture]]), "x" * 50_000: 1})
            artifact = wandb.Artifact("weights", type="model")
            artifact.add_file(str(here / "run" / "weights"), policy="immutable", skip_cache=True)
            run.log_artifact(artifact)
        wandb.teardown()
    (here / "run").rename(there / "run")
    return there / "run"


def wandb_file(run: Path) -> Path:
    (path,) = run.glob("wandb/offline-run-*/run-*.wandb")
    return path


def test_records_are_written_as_they_wereread_records(moved_run: Path) -> None:
    content = wandb_file(moved_run).read_bytes()
    records = list(read_records(content))
    assert max(map(len, records)) > 32768  # one spans blocks
    assert content[:HEADER] + written(records) == content
    assert list(read_records(content[:-5])) == records[:-1]


@pytest.mark.parametrize("lengths", [[32768 - 7 - 7], [32768 - 7 - 7 - 3, 5], [32768 - 7 - 7 - 7, 5, 0], [100_000, 1]])
def test_records_at_the_borders_of_blocks(lengths: list[int]) -> None:
    records = [bytes([number]) * length for number, length in enumerate(lengths)]
    assert list(read_records(bytes(HEADER) + written(records))) == records


def test_moved_run_is_uploaded_whole(moved_run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with WandbServer() as server:
        server.use(monkeypatch)
        assert exit_code("sync", str(moved_run)) == 0
    assert server.unknown == []
    uploaded = {path.rsplit("/", 1)[-1]: content for path, content in server.storage.items()}
    assert uploaded["weights"] == bytes(100_000)
    assert uploaded["table.table.json"]
    (picture,) = (path for path in server.storage if path.startswith("artifacts/") and path.endswith(".png"))
    assert server.storage[picture].startswith(b"\x89PNG")
    assert {artifact["state"] for artifact in server.artifacts.values()} == {"COMMITTED"}
    assert find_moved_files(wandb_file(moved_run)) == 0


def test_lost_files_are_named(moved_run: Path, tmp_path: Path) -> None:
    path = tmp_path / wandb_file(moved_run).relative_to(moved_run.parent)
    path.parent.mkdir(parents=True)
    path.write_bytes(wandb_file(moved_run).read_bytes())
    (moved_run / "weights").unlink()
    with pytest.raises(MissingFilesError) as raised:
        find_moved_files(path)
    assert any(name.endswith("/run/weights") for name in raised.value.paths)


@pytest.mark.parametrize(("folder", "message"), [("gone", "there is no folder gone"), (".", "no W&B run lies in .")])
def test_nothing_to_upload(
    folder: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert exit_code("sync", folder) == 1
    assert message in capsys.readouterr().err
