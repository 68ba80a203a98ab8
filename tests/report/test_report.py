"""The report of a run or a study: what it shows, that it holds everything itself, what it says of missing parts."""

import csv
import json
import os
import re
import subprocess
import sys
from base64 import b64decode, b64encode
from hashlib import sha256
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from shutil import copyfile, copytree, which

import matplotlib.image
import numpy as np
import pytest
import soundfile
import torch
from command_line import exit_code, only_checkpoint, only_folder, tiny_run

from audio_lrp.commands.report import main
from audio_lrp.errors import UsageError, UserError
from audio_lrp.html.charts import Axis, Line, line_chart, stacked_bars
from audio_lrp.report.document import report
from audio_lrp.report.run_folder import read_run
from audio_lrp.report.run_log import LoggedExplanation, RunLog, steps_per_epoch
from audio_lrp.report.training_section import Clock

PLUGINS = ("--plugin", "command_line", "--plugin", "fake_corpus")
NAUGHTY = "<script>alert(1)</script>"

WANDB_RUN = """
import sys
import numpy as np
import wandb

settings = wandb.Settings(console="off", x_disable_stats=True)
run = wandb.init(project="p", dir=sys.argv[1], mode="offline", settings=settings)
for epoch in range(2):
    run.log({"val/accuracy": 0.25 + epoch / 2, "val/loss": 2.0, "epoch": epoch, "trainer/global_step": 3 * epoch + 2})
step = {"trainer/global_step": 6}
caption = "true 1, predicted 2 (50%) | relevance for 1 | lrp0"
image = wandb.Image(np.zeros((42, 100, 3), np.uint8), caption=caption)
sound = wandb.Audio(np.zeros(800, np.float32), 8000, f"positive | {caption}")
columns = ["order", "fraction", "accuracy", "probability", "logit"]
curves = wandb.Table(columns, [["morf", 0.0, 1, 0.5, 2], ["morf", 1.0, 0, 0.1, 0]])
run.log({"lrp/aopc_morf": 0.125, **step})
run.log({"lrp/maps": [image], "lrp/audio": [sound], "lrp/perturbation_table": curves, **step})
counts = [["low", "low", 3], ["low", "high", 1], ["high", "low", 0], ["high", "high", 4]]
run.log({"test/confusion_matrix_table": wandb.Table(["true", "predicted", "count"], counts), **step})
run.log({"test/accuracy": 0.875, "epoch": 2, **step})
run.finish()
wandb.teardown()
"""


class Parts(HTMLParser):
    """The elements of a page and its text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def sources(self, tag: str) -> list[str]:
        return [str(attributes["src"]) for name, attributes in self.elements if name == tag]


def content(uri: str, kind: str) -> BytesIO:
    head, _, data = uri.partition(",")
    assert head == f"data:{kind};base64"
    return BytesIO(b64decode(data, validate=True))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of two epochs without logger, tested, with callbacks."""
    folder = tmp_path_factory.mktemp("report")
    options = [
        *tiny_run(folder / "corpus"),
        f"--run.root={folder / 'runs'}",
        "--run.test_after_fit=true",
        "--trainer.max_epochs=2",
        "--trainer.callbacks+=ModelCheckpoint",
        "--trainer.callbacks.monitor=val/accuracy",
        "--trainer.callbacks.mode=max",
        "--trainer.callbacks+=ConfusionMatrixCallback",
        "--trainer.callbacks+=LRPCallback",
        "--trainer.callbacks.num_examples=4",
        "--trainer.callbacks.num_pictures=2",
    ]
    assert exit_code("fit", *options) == 0
    return only_folder(folder / "runs")


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of the run, to be damaged."""
    return copytree(trained, tmp_path / "run")


@pytest.fixture(scope="module")
def page(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run's page, with explanations computed anew."""
    path = tmp_path_factory.mktemp("page") / "page.html"
    assert exit_code("report", str(trained), "--output", str(path), *PLUGINS) == 0
    return path


def test_the_page_holds_everything_itself(page: Path) -> None:
    parts = Parts(page)
    sources = [*parts.sources("img"), *parts.sources("audio")]
    assert len(sources) > 20
    assert all(source.startswith("data:") for source in sources)
    assert not {name for name, _ in parts.elements} & {"script", "link", "iframe", "object", "embed", "base"}
    assert all(str(item["href"]).startswith("#") for name, item in parts.elements if name == "a")
    assert "url(" not in parts.source
    assert not any(name.startswith("on") or name == "style" for _, item in parts.elements for name in item)


def test_the_policy_allows_the_style_alone(page: Path) -> None:
    source = page.read_text()
    style = source.partition("<style>")[2].partition("</style>")[0]
    (policy,) = [item["content"] for _, item in Parts(page).elements if "http-equiv" in item]
    digest = b64encode(sha256(style.encode()).digest()).decode()
    assert policy == (
        f"default-src 'none'; img-src data:; media-src data:; style-src 'sha256-{digest}'; base-uri 'none'; "
        "form-action 'none'"
    )


def test_a_checkpoint_alone_is_enough(trained: Path, tmp_path: Path) -> None:
    checkpoint = tmp_path / "elsewhere.ckpt"
    copyfile(next(trained.glob("checkpoints/*.ckpt")), checkpoint)
    assert exit_code("report", str(checkpoint), *PLUGINS) == 0
    parts = Parts(tmp_path / "report.html")
    assert len(parts.sources("img")) >= 10  # explanations, computed anew
    for text in ("explained by the checkpoint elsewhere.ckpt", "TinyNetwork", "name the folder of its run"):
        assert text in parts.text
    for text in ("was not tested", "not kept", "were logged", "best checkpoint"):
        assert text not in parts.text


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    assert exit_code("report", str(tmp_path / "notes.txt")) == 1
    assert "notes.txt is no checkpoint: give a .ckpt file" in capsys.readouterr().err
    torch.save({"state_dict": {}}, tmp_path / "old.ckpt")
    assert exit_code("report", str(tmp_path / "old.ckpt")) == 1
    assert "old.ckpt does not hold its run's configuration: name the folder" in capsys.readouterr().err


def test_accuracy_is_the_confusion_matrix_one(page: Path, trained: Path) -> None:
    with (trained / "test" / "confusion_matrix.csv").open() as file:
        rows = list(csv.DictReader(file))
    total = sum(int(row["count"]) for row in rows)
    right = sum(int(row["count"]) for row in rows if row["true"] == row["predicted"])
    text = Parts(page).text
    assert f"{100 * right / total:.1f} %" in text
    assert f"{total} clips" in text


def test_sounds_and_pictures_of_ten_clips_of_all_classes(page: Path) -> None:
    parts = Parts(page)
    sounds = [soundfile.read(content(source, "audio/wav")) for source in parts.sources("audio")]
    assert len(sounds) == 3 * 10
    assert all(rate == 8000 and 3000 <= len(samples) < 6000 for samples, rate in sounds)  # the corpus's lengths
    assert all(np.abs(samples).max() > 0.01 for samples, _ in sounds[::3])
    pictures = [matplotlib.image.imread(content(source, "image/png")) for source in parts.sources("img")]
    assert {picture.shape[:2] for picture in pictures} == {(420, 1000)}
    assert len(pictures) == 2 * 10 + 2  # and the same clip after two epochs
    summaries = re.findall(r"true (\d), predicted", parts.text)
    assert sorted(summaries[:10]) == [str(digit) for digit in range(10)]


def test_ledger_is_shown_and_conserved(page: Path) -> None:
    table = Parts(page).source.partition("<caption>From the output to the input</caption>")[2].partition("</table>")[0]
    rows = [re.findall(r"<t[hd][^>]*>([^<]*)</t", row) for row in table.split("<tr>")[2:]]
    assert [row[1] for row in rows] == ["Linear", "Conv1d"]
    for _, _, _, upper, lower, bias, stabilizer, gap in rows:
        assert float(upper) == pytest.approx(float(lower) + float(bias) + float(stabilizer), abs=2e-3)
        assert float(gap) < 1e-4


def test_curves_are_the_logged_ones(page: Path, trained: Path) -> None:
    (path,) = (trained / "lrp" / "test").glob("*-perturbation.csv")
    with path.open() as file:
        logged = [row for row in csv.DictReader(file) if row["order"] == "morf"]
    text = Parts(page).source
    for row in logged:
        fraction, logit = round(100 * float(row["fraction"]), 2), float(row["logit"])
        assert f'<tr><th scope="row">morf</th><td>{fraction:g} %</td><td>{logit:.4g}</td></tr>' in text


def test_names_are_text(run: Path, tmp_path: Path) -> None:
    folder = run.rename(tmp_path / "<img src=x>")
    confusions = folder / "test" / "confusion_matrix.csv"
    confusions.write_text(confusions.read_text().replace("\n9,", f"\n{NAUGHTY},").replace(",9,", f",{NAUGHTY},"))
    for path in (folder / "lrp" / "test").glob("*.csv"):
        path.write_text(path.read_text().replace("morf", NAUGHTY))
    (folder / "config.yaml").write_text((folder / "config.yaml").read_text() + f"# {NAUGHTY}\n")
    parts = Parts(report(folder).path)
    assert parts.text.count(NAUGHTY) > 10
    assert "script" not in {name for name, _ in parts.elements}
    assert all(str(item.get("src")).startswith("data:") for name, item in parts.elements if name == "img")


def test_page_lies_in_the_folder_unless_told_otherwise(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("report", str(run)) == 0
    assert capsys.readouterr().out == f"report: {run / 'report.html'}\n"
    assert not [path for path in run.iterdir() if path.name.startswith(".")]


def test_classes_of_strange_packages_are_not_imported(run: Path) -> None:
    parts = Parts(report(run).path)
    assert "--plugin command_line" in parts.text
    assert len(parts.sources("audio")) == 3 * 2  # those that were logged
    assert "there is no ledger" not in parts.text.lower()  # a run without W&B has logged it


def test_a_composite_without_time_and_frequency_shows_the_maps_that_exist(run: Path) -> None:
    config = (run / "config.yaml").read_text()
    assert "composite: epsilon" in config
    (run / "config.yaml").write_text(re.sub("composite: epsilon.*", "composite: epsilon_alpha2_beta1_flat", config))
    parts = Parts(report(run, plugins=("command_line", "fake_corpus")).path)
    assert "There are maps alone, without time, frequency and sounds of relevance: samples of zero have" in parts.text
    assert len(parts.sources("audio")) == len(parts.sources("img")) - 2 == 10


@pytest.mark.parametrize("damage", ["missing", "damaged"])
def test_without_checkpoint_the_logged_is_shown(run: Path, damage: str) -> None:
    path = only_checkpoint(run)
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(b"nothing")
    written = report(run)
    parts = Parts(written.path)
    assert "holds no checkpoint that can be read" in parts.text
    assert len(parts.sources("audio")) == 3 * 2
    assert len(written.problems) == (damage == "damaged")
    assert all(str(path) in problem for problem in written.problems)


def test_without_the_corpus_the_logged_is_shown(run: Path) -> None:
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("task: digit", "task: colour"))
    parts = Parts(report(run, plugins=("command_line", "fake_corpus")).path)
    assert re.search("nothing was computed anew: .*colour", parts.text)
    assert len(parts.sources("audio")) == 3 * 2


def test_damaged_tables_are_told_and_left_out(run: Path) -> None:
    (path,) = (run / "lrp" / "test").glob("*-perturbation.csv")
    path.write_bytes(b"\xff\xfe\x00")
    (run / "test" / "confusion_matrix.csv").write_text("true,predicted,count\n0,1\n")
    problems = report(run).problems
    assert len(problems) == 2
    assert any(str(path) in problem for problem in problems)
    assert any("confusion_matrix.csv is damaged: rows are missing or cut off" in problem for problem in problems)


def test_an_untested_run_without_anything_logged(run: Path) -> None:
    for path in [*run.glob("lrp/**/*.*"), *run.glob("test/*")]:
        path.unlink()
    only_checkpoint(run).unlink()
    text = Parts(report(run).path).text
    for sentence in (
        "The run was not tested",
        "There are no losses and accuracies of a training",
        "There are no logged relevance maps",
        "No perturbation curves were logged",
        "There is no ledger",
    ):
        assert sentence in text


def test_folders_that_are_none_of_a_run(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no folder .*missing: name the folder of a run or a study"):
        report(tmp_path / "missing")
    with pytest.raises(UserError, match=r"is not the folder of a run"):
        report(tmp_path)
    for damaged in ("a: [", "a: 2024-02-30"):
        (run / "config.yaml").write_text(damaged)
        with pytest.raises(UserError, match=r"configuration .*config.yaml cannot be read"):
            report(run)
    (run / "config.yaml").write_text("- 1")
    with pytest.raises(UserError, match=r"is not the configuration of a run"):
        report(run)
    with pytest.raises(UsageError, match="--outptu"):
        main([str(run), "--outptu", "x"])


def test_output_that_cannot_be_written(run: Path) -> None:
    (run / "file").write_text("")
    with pytest.raises(UserError, match="choose another place with --output"):
        report(run, run / "file" / "report.html")


def test_steps_of_an_epoch_are_those_that_explain_all_rows() -> None:
    for steps in (1, 7, 88):
        ends = [{"step": epoch * steps + steps - 1, "epoch": epoch} for epoch in range(4)]
        assert steps_per_epoch(ends) == steps
    assert steps_per_epoch(ends[:1]) is None  # the epoch may go on
    assert steps_per_epoch([]) is None


def test_a_training_that_ended_within_its_first_epoch_is_told_in_steps() -> None:
    """With the rows that such a run logs: validation, explanation, test."""
    rows = [
        {"step": 1, "epoch": 0, "val/loss": 1.0},
        {"step": 3, "epoch": 0, "val/loss": 1.0},
        {"step": 4, "lrp/srg": 0.5},
        {"step": 4, "epoch": 1, "test/loss": 1.0},
    ]
    clock = Clock(RunLog(rows, [LoggedExplanation(4, is_test, {"srg": 0.5}) for is_test in (False, True)]))
    assert (clock.last, clock.name(4)) == (4, "step 4")


def test_a_test_alone_tells_no_time_of_training() -> None:
    log = RunLog([{"step": 0, "epoch": 0, "test/loss": 1.0}], [LoggedExplanation(0, True, {"srg": 0.5})])
    assert Clock(log).last is None


@pytest.mark.parametrize(
    ("epochs", "fact"),
    [(1, "<strong>step 1</strong><span></span>"), (2, "<strong>epoch 2</strong><span>2 steps</span>")],
)
def test_page_tells_how_long_the_training_was(run: Path, epochs: int, fact: str) -> None:
    only_checkpoint(run).unlink()
    for path in run.glob("lrp/*.*"):
        path.unlink()
    rows = "".join(f"{epoch},{epoch},0.5\n" for epoch in range(epochs))
    (run / "metrics.csv").write_text(f"step,epoch,val/loss\n{rows}")
    assert f"<dt>trained until</dt><dd>{fact}</dd>" in Parts(report(run).path).source


def test_lines_lie_where_their_values_are() -> None:
    line = Line("a & b", [0.0, 0.25, 1.0], [1.0, 3.0, 2.0])
    chart = line_chart("t", [line], Axis("x", limits=(0, 1)), Axis("y", limits=(0, 4)))
    points = re.search(r'points="([^"]*)"', chart.drawing)
    places = np.array([[float(value) for value in pair.split(",")] for pair in points[1].split()])
    across, up = places.T
    assert np.diff(across) / np.ptp(across) == pytest.approx([0.25, 0.75], abs=2e-3)
    # The axes' ends are known from the ticks.
    ticks = {text: float(y) - 4 for y, text in re.findall(r'class="left" x="\d+" y="([\d.]+)">([^<]+)<', chart.drawing)}
    assert up == pytest.approx([np.interp(value, [0, 4], [ticks["0"], ticks["4"]]) for value in line.y], abs=0.11)
    assert "a &amp; b" in chart.drawing
    assert chart.rows[1] == ["a & b", "0.25", "3"]


def test_bars_add_up_on_either_side() -> None:
    chart = stacked_bars("t", ["p", "q", "r"], {"layer": [2.0, 1.0, -1.0]}, Axis("x"))
    drawn = re.findall(r'<rect [^>]*x="([\d.]+)"[^>]*width="([\d.]+)"', chart.drawing)
    (two, two_wide), (one, one_wide), (minus, minus_wide) = [(float(left), float(width)) for left, width in drawn]
    assert two_wide == pytest.approx(2 * one_wide, abs=0.2)
    assert one_wide == pytest.approx(minus_wide, abs=0.2)
    assert one == pytest.approx(two + two_wide, abs=0.2)
    assert minus == pytest.approx(two - minus_wide, abs=0.2)


def test_scores_are_read_back_from_files(trained: Path) -> None:
    names = {"aopc_morf", "aopc_lerf", "aopc_random", "aopc_amplitude", "srg", "relevance_mass"}
    assert {*read_run(trained).log.explanations[-1].scores} == names


@pytest.fixture(scope="module")
def wandb_run(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run as if it had been logged to W&B: under the keys of the callbacks, offline."""
    folder = copytree(trained, tmp_path_factory.mktemp("wandb") / "run")
    for path in [*folder.glob("lrp/**/*.*"), *folder.glob("test/*")]:
        path.unlink()
    subprocess.run(
        [sys.executable, "-c", WANDB_RUN, str(folder)],
        check=True,
        capture_output=True,
        env={**os.environ, "WANDB_SILENT": "true"},
    )
    return folder


def test_what_was_logged_to_wandb_is_read_back(wandb_run: Path) -> None:
    log = read_run(wandb_run).log
    assert log.problems == []
    assert log.series("val/accuracy") == [(2, 0.25), (5, 0.75)]
    assert log.last("test/accuracy") == 0.875
    assert sum(int(row["count"]) for row in log.confusions) == 8
    (explanation,) = log.explanations
    assert explanation.scores == {"aopc_morf": 0.125}
    assert [row["logit"] for row in explanation.curves] == ["2", "0"]
    (clip,) = explanation.clips
    assert clip.caption == "true 1, predicted 2 (50%) | relevance for 1 | lrp0"
    assert clip.pictures["map"].is_file()
    assert soundfile.info(clip.sounds["positive"]).frames == 800
    assert log.versions["lightning"]


def test_the_page_of_a_wandb_run(wandb_run: Path) -> None:
    parts = Parts(report(wandb_run).path)
    assert "87.5 %" in parts.text
    assert "epoch 2" in parts.text
    assert '<td class="share-10">4</td>' in parts.source
    assert len(parts.sources("audio")) == 1


def test_a_wandb_file_that_was_cut_off(wandb_run: Path, tmp_path: Path) -> None:
    folder = copytree(wandb_run, tmp_path / "run")
    (path,) = folder.glob("wandb/offline-*/*.wandb")
    path.write_bytes(path.read_bytes()[:-400])
    (problem,) = report(folder).problems
    assert path.name in problem
    path.write_bytes(b"nothing of W&B")
    (problem,) = report(folder).problems
    assert path.name in problem


def test_media_outside_the_run_stay_outside(wandb_run: Path, tmp_path: Path) -> None:
    folder = copytree(wandb_run, tmp_path / "run")
    secret = tmp_path / "secret.png"
    secret.write_bytes(b"secret")
    (picture,) = folder.glob("wandb/offline-*/files/media/images/lrp/*.png")
    picture.unlink()
    picture.symlink_to(secret)
    parts = Parts(report(folder).path)
    assert not parts.sources("img")


@pytest.fixture
def study(trained: Path, tmp_path: Path) -> Path:
    """A study of two finished cells, the first of which has a checkpoint, and one that failed."""
    folder = tmp_path / "study-tones"
    orders, fractions = ("morf", "lerf", "random", "amplitude"), (0.0, 0.01, 0.05, 0.1, 1.0)
    for fold, accuracy in enumerate((0.5, 0.75)):
        cell = folder / "cells" / f"tiny-digit-fold{fold}"
        cell.mkdir(parents=True)
        head = {"network": "tiny", "task": "digit", "fold": fold, "clips": 4, "torch": "2.0"}
        result = head | {"test_accuracy": accuracy, "validation_accuracy": accuracy, "steps": 2}
        (cell / "result.json").write_text(json.dumps(result))
        (cell / "predictions.csv").write_text(f"label,prediction\n{NAUGHTY},{NAUGHTY}\nlow,high\nlow,low\n")
        curves = [f"{order},{fraction},{1 - fraction},{accuracy},0" for order in orders for fraction in fractions]
        (cell / "perturbation.csv").write_text("\n".join(["order,fraction,accuracy,probability,logit", *curves]) + "\n")
        outcome = np.tile(1 - np.array(fractions), (len(orders), 4, 1))
        np.savez(
            cell / "perturbation.npz",
            orders=np.array(orders),
            fractions=np.array(fractions),
            speaker=np.arange(4) + 4 * fold,
            accuracy=outcome,
            probability=outcome,
        )
    first = folder / "cells" / "tiny-digit-fold0"
    (first / "training" / "20260101-000000").mkdir(parents=True)
    copyfile(trained / "config.yaml", first / "training" / "20260101-000000" / "config.yaml")
    (first / "checkpoints").mkdir()
    copyfile(only_checkpoint(trained), first / "checkpoints" / "best.ckpt")
    (folder / "cells" / "tiny-gender-fold0").mkdir()
    (folder / "cells" / "tiny-gender-fold0" / "failure.json").write_text("{}")
    corpus = {"name": "Tones", "recordings": 60, "speakers": 6}
    description = {"format": 1, "audio_lrp": "0.1.0", "corpus": corpus, "composite": "lrp0", "folds": {"digit": 2}}
    (folder / "study.json").write_text(json.dumps(description))
    return folder


def test_the_page_of_a_study(study: Path) -> None:
    written = report(study, plugins=("command_line", "fake_corpus"))
    parts = Parts(written.path)
    assert written.path == study / "report.html"
    (problem,) = written.problems
    assert "tiny-gender-fold0 failed" in problem
    assert "2 of 3" in parts.text
    # Mean and standard deviation over two folds of 50 % and 75 %.
    row = "<td>tiny</td><td>digit</td><td>62.5 ± 17.7</td><td>2</td>"
    assert f'<th scope="row">test accuracy</th>{row}' in parts.source
    assert '<td class="share-5">2</td>' in parts.source  # of four low tones in two folds
    assert f'<th scope="row">{NAUGHTY.replace("<", "&lt;").replace(">", "&gt;")}</th>' in parts.source
    assert "script" not in {name for name, _ in parts.elements}
    assert len(parts.sources("audio")) == 3 * 2
    assert all(source.startswith("data:") for source in (*parts.sources("img"), *parts.sources("audio")))
    assert '<tr><th scope="row">morf</th><td>10 %</td><td>90 %</td></tr>' in parts.source


def test_a_study_without_checkpoints_or_finished_cells(study: Path) -> None:
    for path in study.glob("cells/*/checkpoints/*"):
        path.unlink()
    parts = Parts(report(study).path)
    assert "nothing could be explained anew: there is no checkpoint" in parts.text
    for path in study.glob("cells/*/result.json"):
        path.unlink()
    assert "No cell of the study is finished yet." in Parts(report(study).path).text
    (study / "study.json").write_text("{")
    with pytest.raises(UserError, match=r"study\.json is damaged"):
        report(study)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_in_a_browser(page: Path, scheme: str) -> None:
    browsers = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = which("chromium") or which("google-chrome")
    if chromium is None:
        pytest.skip("there is no Chromium")
    messages: list[str] = []
    with browsers.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 390, "height": 844}, color_scheme=scheme)
        tab.on("console", lambda message: messages.append(message.text))
        tab.on("pageerror", lambda error: messages.append(str(error)))
        tab.on("request", lambda request: messages.append(request.url) if request.url.startswith("http") else None)
        tab.goto(page.as_uri())
        # A phone's width is enough, but for what scrolls within its own box.
        assert tab.evaluate("document.documentElement.scrollWidth") == 390
        paper = [
            int(value) for value in re.findall(r"\d+", tab.evaluate("getComputedStyle(document.body).backgroundColor"))
        ]
        assert (min(paper[:3]) > 200) if scheme == "light" else (max(paper[:3]) < 60)
        play = "async sound => { sound.muted = true; await sound.play(); return [sound.duration, sound.readyState] }"
        duration, state = tab.evaluate(f"({play})(document.querySelector('audio'))")
        samples, rate = soundfile.read(content(Parts(page).sources("audio")[0], "audio/wav"))
        assert duration == pytest.approx(len(samples) / rate, abs=1e-3)
        assert state >= 2
        shown = "image => { image.loading = 'eager'; return image.decode().then(() => image.naturalWidth) }"
        assert tab.evaluate(f"Promise.all([...document.images].map({shown}))") == [1000] * len(
            Parts(page).sources("img")
        )
        browser.close()
    assert messages == []
