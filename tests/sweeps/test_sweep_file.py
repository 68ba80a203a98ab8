"""Sweep files: what they say, and what is refused."""

from pathlib import Path
from typing import Any

import pytest

from audio_lrp.errors import UserError
from audio_lrp.sweeps.sweep_file import make_sweep, read_sweep

SWEEP: dict[str, Any] = {
    "method": "random",
    "metric": {"name": "val/accuracy", "goal": "maximize"},
    "command": ["${env}", "audio-lrp", "fit", "${args}"],
    "parameters": {"model.mixup": {"min": 0.0, "max": 1.0}, "data.fold": {"values": [0, 1, 2]}},
}
GRID = SWEEP | {
    "method": "grid",
    "parameters": {"b": {"min": 1, "max": 2}, "a": {"values": ["x", [1, 2], None]}, "c": {"value": True}},
}


def test_grid() -> None:
    sweep = make_sweep(GRID)
    assert [tuple(point.values()) for point in sweep.grid] == [
        (a, b, True) for a in ("x", [1, 2], None) for b in (1, 2)
    ]
    assert list(sweep.grid[0]) == ["a", "b", "c"]  # sorted, as W&B's engine has them
    assert sweep.arguments(sweep.grid[2]) == ["fit", "--a=[1, 2]", "--b=1", "--c=True"]
    stepped = GRID | {"parameters": {"x": {"distribution": "q_uniform", "min": 0, "max": 1, "q": 0.25}}}
    assert [point["x"] for point in make_sweep(stepped).grid] == [0, 0.25, 0.5, 0.75]


def test_macros(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROOT", "a b")
    words = ["${env}", "${program}", "test", "--data.root=${envvar:ROOT}/c", "${args_no_equals}"]
    sweep = make_sweep(SWEEP | {"program": "audio-lrp", "command": words})
    assert sweep.arguments({"x": 1, "y": "z"}) == ["test", "--data.root=a b/c", "--x", "1", "--y", "z"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "custom"}, "method is one of grid, random, bayes, not 'custom'"),
        ({"image_uri": "x"}, "key 'image_uri' is not supported without W&B"),
        ({"metric": {"goal": "maximize"}}, "names no metric"),
        ({"metric": {"name": "x", "goal": "up"}}, "minimize or maximize, not 'up'"),
        ({"metric": {"name": "x", "target": "0.9"}}, "target .* is a number, not '0.9'"),
        ({"early_terminate": {"type": "hyperband", "min_iter": "2"}}, "min_iter .* is a number, not '2'"),
        ({"metric": {"name": "x", "gaol": "maximize"}}, "metric of the sweep takes no 'gaol'"),
        ({"parameters": {}}, "no parameters"),
        ({"run_cap": 0}, "run_cap is a number of trials"),
        ({"command": None}, "has no command"),
        ({"command": ["${env}", "${interpreter}", "${program}", "${args}"]}, "must be audio-lrp with one of fit"),
        ({"command": ["audio-lrp", "explain"]}, "must be audio-lrp with one of fit"),
        ({"command": ["audio-lrp", "fit", "${args_json}"]}, r"macro \$\{args_json\} .* not supported"),
        ({"command": ["audio-lrp", "fit", "${envvar:NO_SUCH}"]}, "variable NO_SUCH: export NO_SUCH="),
        ({"early_terminate": {"type": "median"}}, "the type hyperband"),
        ({"early_terminate": {"type": "hyperband"}}, "needs min_iter, or max_iter and s"),
        ({"early_terminate": {"type": "hyperband", "max_iter": 9}}, "lacks s"),
        ({"early_terminate": {"type": "hyperband", "min_iter": 2, "eta": 1}}, "eta .* is above 1"),
        ({"early_terminate": {"type": "hyperband", "min_iter": 2, "s": 2, "x": 1}}, "takes no 'x'"),
        ({"early_terminate": {"type": "hyperband", "max_iter": 2, "s": 2}}, "never compares"),
        ({"method": "grid"}, "model.mixup has no countable values"),
    ],
)
def test_refusals(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_sweep(SWEEP | change)


def test_files(tmp_path: Path) -> None:
    (tmp_path / "audionet.yaml").write_text("- a\n")
    with pytest.raises(UserError, match=r"audiont.yaml cannot be read .*: did you mean .*audionet.yaml"):
        read_sweep(tmp_path / "audiont.yaml")
    with pytest.raises(UserError, match=r"nothing cannot be read .*: give a W&B sweep file"):
        read_sweep(tmp_path / "nothing")
    with pytest.raises(UserError, match="no YAML mapping"):
        read_sweep(tmp_path / "audionet.yaml")
    (tmp_path / "audionet.yaml").write_text("a: [")
    with pytest.raises(UserError, match=r"audionet.yaml is not valid YAML: expected .* in line 1$"):
        read_sweep(tmp_path / "audionet.yaml")
