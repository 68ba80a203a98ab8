"""The page about a run."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from audio_lrp.errors import UserError
from audio_lrp.html.blocks import Block, Code, ConfusionMatrix, Fact, Page, Paragraph, Section, Table, percent
from audio_lrp.report.explained import Explained, explain_test_clips
from audio_lrp.report.explanation_sections import clips_section, ledger_section, perturbation_section
from audio_lrp.report.run_folder import RunFolder
from audio_lrp.report.training_section import Clock, training_section

_NUM_CLIPS = 10
"""One of each digit, five of each gender."""


def run_page(run: RunFolder, plugins: Collection[str] = ()) -> Page:
    """Everything that a run's folder tells, and explanations computed anew where that is possible.

    Args:
        run: the folder.
        plugins: packages whose classes the run may name (see `explain_test_clips`).
    """
    clock = Clock(run.log)
    explained, reason = _explained(run, plugins)
    clips = clips_section(run.log, explained, reason, clock)
    ledger = ledger_section(run.log, explained, reason)
    if run.is_checkpoint:
        sections = [_results_section(), clips, ledger]
    else:
        training, perturbation = training_section(run.log, clock), perturbation_section(run.log, clock)
        sections = [_test_section(run), training, clips, perturbation, ledger]
    return Page(
        title=f"{run.path.parent.name}/{run.path.name}",
        subtitle=_subtitle(run),
        facts=_facts(run, clock),
        problems=run.log.problems,
        sections=[*sections, _setup_section(run)],
    )


def _explained(run: RunFolder, plugins: Collection[str]) -> tuple[Explained | None, str]:
    if run.best is None:
        return None, f"{run.path} holds no checkpoint that can be read"
    try:
        return explain_test_clips(run.config, run.best.path, _NUM_CLIPS, plugins), ""
    except UserError as error:
        return None, str(error)


def _subtitle(run: RunFolder) -> str:
    corpus = run.setting("data.corpus") or run.setting("data")
    return (
        f"{_class_name(run.setting('model.network'))}, {run.setting('data.representation')}, "
        f"task {run.setting('data.task')}, fold {run.setting('data.fold')} of "
        f"{_class_name(corpus).removesuffix('DataModule')}"
    )


def _facts(run: RunFolder, clock: Clock) -> list[Fact]:
    facts = []
    counts = [int(row["count"]) for row in run.log.confusions]
    right = sum(int(row["count"]) for row in run.log.confusions if row["true"] == row["predicted"])
    accuracy = right / sum(counts) if sum(counts) else run.log.last("test/accuracy")
    if accuracy is not None:
        clips = f"{sum(counts)} clips, " if counts else ""
        facts.append(Fact("test accuracy", percent(accuracy), f"{clips}speakers never heard in training"))
    validation = [value for _, value in run.log.series("val/accuracy")]
    if run.best is not None and run.best.monitor == "val/accuracy" and run.best.score is not None:
        validation.append(run.best.score)
    if validation:
        facts.append(Fact("best validation accuracy", percent(max(validation)), "speakers that choose the checkpoint"))
    if clock.last is not None:
        steps = f"{clock.last:.0f} steps" if clock.unit == "epoch" else ""
        facts.append(Fact("trained until", clock.name(clock.last), steps))
    return facts


def _results_section() -> Section:
    """In place of what a checkpoint alone cannot tell."""
    text = (
        "A checkpoint holds neither scores, nor losses, nor perturbation curves: name the folder of its run, "
        "runs/NAME/TIME, to see those that were kept."
    )
    return Section("results", "Training and test", [Paragraph(text, warning=True)])


def _test_section(run: RunFolder) -> Section:
    rows, blocks = run.log.confusions, list[Block]()
    scores = [(name, run.log.last(f"test/{name}")) for name in ("accuracy", "f1", "loss")]
    if known := [[name, f"{value:.4f}"] for name, value in scores if value is not None]:
        blocks.append(Table("Scores of the test", ["score", "value"], known))
    if rows:
        names = list(dict.fromkeys(row["true"] for row in rows))
        counts = {(row["true"], row["predicted"]): int(row["count"]) for row in rows}
        matrix = [[counts.get((true, predicted), 0) for predicted in names] for true in names]
        blocks += [ConfusionMatrix(names, matrix), _per_class(names, matrix)]
    elif not known:
        text = (
            "The run was not tested: audio-lrp test --ckpt_path FILE does it, in a run of its own that audio-lrp "
            "report shows as well; with --run.test_after_fit true a training ends with its test."
        )
        blocks.append(Paragraph(text, warning=True))
    else:
        blocks.append(Paragraph("No confusion matrix was logged: ConfusionMatrixCallback does it.", warning=True))
    return Section("test", "Test", blocks)


def _per_class(names: Sequence[str], matrix: Sequence[Sequence[int]]) -> Table:
    rows = []
    for number, name in enumerate(names):
        right, true = matrix[number][number], sum(matrix[number])
        predicted = sum(row[number] for row in matrix)
        shares = [percent(right / total) if total else "none" for total in (true, predicted)]
        rows.append([name, str(true), *shares])
    return Table("Class by class", ["class", "clips", "recall", "precision"], rows)


def _setup_section(run: RunFolder) -> Section:
    names = {
        "network": "model.network",
        "optimizer": "model.optimizer",
        "learning rate": "model.optimizer.lr",
        "scheduler": "model.scheduler",
        "corpus": "data",
        "corpus folder": "data.root",
        "task": "data.task",
        "fold": "data.fold",
        "number of folds": "data.num_folds",
        "representation": "data.representation",
        "batch size": "data.batch_size",
        "augmentations": "data.augmentations",
        "precision": "trainer.precision",
        "seed": "seed_everything",
    }
    values = {name: run.setting(setting) for name, setting in names.items()}
    rows = [[name, _shown(value)] for name, value in values.items() if value is not None]
    if run.best is not None:
        rows.append(["checkpoint", run.best.path.name])
    header, version = "# audio-lrp ", run.text.partition("\n")[0]
    versions = {"audio-lrp": version.removeprefix(header)} if version.startswith(header) else {}
    versions |= run.log.versions
    blocks: list[Block] = [Table("Settings", ["setting", "value"], rows)]
    if versions:
        blocks.append(Table("Versions", ["package", "version"], [[*item] for item in versions.items()]))
    return Section("setup", "Configuration", [*blocks, Code("The whole configuration", run.text)])


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_shown, value))
    return _class_name(value) if isinstance(value, Mapping) else str(value)


def _class_name(value: Any) -> str:
    path = value.get("class_path") if isinstance(value, Mapping) else value
    return str(path).rpartition(".")[2]
