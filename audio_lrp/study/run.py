"""A run of a study: the cells that are wanted are done by workers, then tables and figures are written."""

from argparse import Namespace
from pathlib import Path

from audio_lrp.errors import UsageError, UserError
from audio_lrp.jobs import FAILURE, JOB, Queue, default_storage, storage_errors, supervise
from audio_lrp.study.budget import find_budget, load_budget
from audio_lrp.study.cells import CellWork
from audio_lrp.study.charts import draw
from audio_lrp.study.corpora import find_corpus
from audio_lrp.study.plan import RESULT, Study, choose_cells, networks_of, open_study
from audio_lrp.study.rows import write_table
from audio_lrp.study.tables import collect, summary_text


def run_study(options: Namespace) -> None:
    """Do what ``audio-lrp study`` was asked for.

    Args:
        options: the command's options.

    Raises:
        UserError: the corpus, a file of the study, its folder or its storage is wrong, or a cell failed.
        UsageError: a mistake in the options.
    """
    budget = load_budget(find_budget(options.budget))
    unknown = [network for network in options.networks or () if network not in networks_of(budget)]
    if unknown:
        raise UsageError(f"--networks: the budget has no {unknown[0]!r}; choose from {', '.join(networks_of(budget))}")
    if options.workers < 1:
        raise UsageError(f"--workers is {options.workers}: give the number of processes, 1 or more")
    corpus = find_corpus(options.corpus, budget.synthetic, options.exclude)
    study = Study((options.output or Path(f"study-{corpus.name}")).absolute(), corpus, budget)
    cells = choose_cells(study, options.networks, options.tasks, options.folds)
    open_study(study)
    work = CellWork(study, cells, options.storage or default_storage(study.folder))
    if all(map(study.is_finished, cells)):
        write_results(study.folder)
    else:
        work.folder.mkdir(exist_ok=True)
        with storage_errors(work.storage):
            ended = frozenset(trial.number for trial in work.open().trials if trial.state.is_finished())
        # What failed before this command is tried again, and what was completed is known by its result.
        queue = supervise(work, options.workers, unit="cell", ignored=ended)
        write_results(study.folder)
        _report_failures(work, queue)
    print(f"study: {study.folder}")


def write_results(folder: Path) -> None:
    """Write the tables and figures of a study's finished cells, and print the summary.

    Anew where a cell was finished meanwhile: of several commands the last must not overwrite more with less.
    """
    finished = None
    while finished != (finished := _finished(folder)):
        tables = collect(folder)
        for name, rows in tables.items():
            write_table(folder / "tables" / name, rows)
        draw(tables, folder / "figures")
    if "summary" in tables:
        print(summary_text(tables["summary"]))


def _finished(folder: Path) -> set[Path]:
    return set((folder / "cells").glob(f"*/{RESULT}"))


def _report_failures(work: CellWork, queue: Queue) -> None:
    """Say where cells have failed.

    Raises:
        UserError: some have.
    """
    study = work.study
    attempts = {trial.user_attrs[JOB]: trial for trial in queue.latest()}
    unfinished = work.unfinished(queue.attempts())
    failed = [cell for cell in work.cells if cell.name in unfinished]
    if failed:
        reason = attempts[failed[0].name].user_attrs.get(FAILURE, "its worker died again and again")
        raise UserError(
            f"{len(failed)} of {len(work.cells)} cells failed, the first of them {failed[0].name} ({reason}; see "
            f"{study.cell_folder(failed[0]) / 'cell.log'}): fix the cause and run the command again, which repeats "
            "only failed cells"
        )
