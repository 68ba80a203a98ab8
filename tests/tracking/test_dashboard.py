"""The W&B workspace and report: built from code, of keys that runs log."""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import wandb
from command_line import exit_code, only_folder, tiny_run, wandb_config, wandb_records
from wandb_server import WandbServer

from audio_lrp.tracking.dashboard import HYPERPARAMETERS, OBJECTIVE, TITLE

DASHBOARD = ["dashboard", "--entity=someone", "--project=tests"]


@pytest.fixture(autouse=True)
def ended_session() -> Iterator[None]:
    """W&B keeps the server that it has talked to for the rest of its process, where other tests have their own."""
    yield
    wandb.teardown()


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The records of an offline run of a tiny network, with a test at its end."""
    folder = tmp_path_factory.mktemp("run")
    callbacks = ["--trainer.callbacks+=LRPCallback", "--trainer.callbacks.num_examples=2"]
    callbacks += ["--trainer.callbacks.num_pictures=1", "--trainer.callbacks+=ConfusionMatrixCallback"]
    logger = ["--trainer.logger=WandbLogger", "--trainer.logger.project=tests", f"--run.root={folder}/runs"]
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("WANDB_", "AUDIO_LRP_"))]:
            patch.delenv(name)
        options = [*tiny_run(folder / "corpus"), *logger, *callbacks, "--run.test_after_fit=true"]
        assert exit_code("fit", *options, "--run.artifacts=false") == 0
    return wandb_records(only_folder(folder / "runs"))


def dry_run(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert exit_code(*DASHBOARD, "--dry-run") == 0
    printed: dict[str, Any] = json.loads(capsys.readouterr().out)
    return printed


def dictionaries(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        yield node
        node = list(node.values())
    for child in node if isinstance(node, list) else ():
        yield from dictionaries(child)


def panels(specification: dict[str, Any]) -> list[dict[str, Any]]:
    return [node for node in dictionaries(specification) if "viewType" in node and "config" in node]


def keys(panel: dict[str, Any]) -> set[str]:
    """Names of all that a panel draws from runs' histories and summaries."""
    config = panel["config"]
    found = {*config.get("metrics", []), *config.get("mediaKeys", []), config.get("xAxis", "trainer/global_step")}
    tables = [node for node in dictionaries(config) if node.get("name") == "tableKey"]
    return found | {node["value"] for node in tables}


def test_panels_show_what_runs_log(logged: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    names = {name for record in logged for name in record.get("history", {}).get("item", {})}
    history = {name.partition(".")[0] for name in names}  # a picture's path is lrp/maps.path
    drawn = [keys(panel) for panel in panels(dry_run(capsys))]
    assert len(drawn) == 18
    assert set().union(*drawn) >= {
        "val/accuracy",
        "lrp/maps",
        "lrp/audio",
        "lrp/perturbation_table",
        "lrp/perturbation_history_table",
    }
    assert set().union(*drawn) - history == set()


def test_sweeps_are_drawn_over_what_runs_are_made_of(
    logged: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    config = wandb_config(logged)
    for path in HYPERPARAMETERS.values():
        value: Any = config
        for name in path.split("."):
            value = value[name]
    summary = next(record["metric"] for record in logged if record.get("metric", {}).get("name") == "val/accuracy")
    assert OBJECTIVE == "val/accuracy.max"
    assert summary["summary"] == {"max": True}
    text = json.dumps(dry_run(capsys))
    assert "config:model.value.init_args.optimizer.init_args.lr" in text
    assert f"summary:{OBJECTIVE}" in text


def test_saved(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with WandbServer() as server:
        server.use(monkeypatch)
        assert exit_code(*DASHBOARD) == 0
    assert server.unknown == []
    workspace, report = server.views.values()
    assert (workspace["type"], report["type"]) == ("project-view", "runs")
    assert workspace["displayName"] == report["displayName"] == TITLE
    specifications = [json.loads(view["spec"]) for view in (workspace, report)]
    drawn = [sorted(json.dumps(sorted(keys(panel))) for panel in panels(item)) for item in specifications]
    assert drawn[0] == drawn[1]
    assert len(drawn[0]) == 18
    printed = capsys.readouterr().out
    assert f"workspace: {server.url}/someone/tests?nw=" in printed
    assert f"report:    {server.url}/someone/tests/reports/" in printed


def test_wrong_key(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with WandbServer() as server:
        server.use(monkeypatch, key="9" * 40)
        assert exit_code(*DASHBOARD) == 1
    assert server.views == {}
    (message,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("audio-lrp: error")]
    assert "user is not logged in" in message


def test_missing_package(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    assert exit_code(*DASHBOARD) == 1
    assert "wandb-workspaces is not installed: pip install 'audio-lrp[dashboard]'" in capsys.readouterr().err
