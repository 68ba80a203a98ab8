"""Run a study: open it, let one or several workers do its cells, write tables and figures, tell what came out."""

import os
import subprocess
import sys
import threading
import time
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from tqdm import tqdm

from audio_lrp.errors import UsageError, UserError
from audio_lrp.study import claims
from audio_lrp.study.budget import find_budget, load_budget
from audio_lrp.study.charts import draw
from audio_lrp.study.corpora import find_corpus
from audio_lrp.study.plan import FAILURE, Cell, Study, choose_cells, networks_of, open_study, read_json
from audio_lrp.study.rows import write_table
from audio_lrp.study.tables import collect, summary_text
from audio_lrp.study.training import end
from audio_lrp.study.work import Failures, failures, has_failed, state, work
from audio_lrp.utils.parallel import usable_cores

_REFRESH_SECONDS = 1.0


def run_study(options: Namespace, arguments: Sequence[str]) -> None:
    """Do what ``audio-lrp study`` was asked for.

    Args:
        options: the command's options.
        arguments: the words that they were read from, for the workers.

    Raises:
        UserError: the corpus, a file of the study, or the study's folder is wrong, or a cell failed.
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
    earlier = failures(study, cells)
    workers = min(options.workers, sum(not study.is_finished(cell) for cell in cells))
    with _progress(study, cells):
        if workers > 1:
            _work_in_processes(study, arguments, workers)
        else:
            work(study, cells)
    write_results(study.folder)
    _tell(study, cells, earlier)


def write_results(folder: Path) -> None:
    """Write the tables and figures of a study's finished cells, and print the summary.

    Of workers that end together the last one must not be overwritten by one that read before it: they take turns.
    """
    while (claim := claims.take(folder / ".results")) is None:
        time.sleep(_REFRESH_SECONDS)
    with claim:
        tables = collect(folder)
        for name, rows in tables.items():
            write_table(folder / "tables" / name, rows)
        draw(tables, folder / "figures")
    if "summary" in tables:
        print(summary_text(tables["summary"]))


def _work_in_processes(study: Study, arguments: Sequence[str], count: int) -> None:
    """Run the same command several times, each time as one worker; the GPUs are dealt to them in turn."""
    logs = study.folder / "workers"
    logs.mkdir(exist_ok=True)
    processes = []
    try:
        for number in range(count):
            # The last --workers counts. Relative paths stay right: the workers start in the same folder.
            command = [sys.executable, "-m", "audio_lrp.study.supervised", "study", *arguments, "--workers", "1"]
            with (logs / f"{os.getpid()}-{number}.log").open("wb") as log:
                processes.append(
                    subprocess.Popen(
                        command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=_worker_environment(number, count)
                    )
                )
        for process in processes:
            process.wait()
    finally:
        for process in processes:
            process.terminate()  # all at once: each may take the whole time that it is given
        for process in processes:
            end(process)


def _worker_environment(number: int, count: int) -> dict[str, str]:
    """A share of the processor cores that this process may use and one of the GPUs."""
    environment = dict(os.environ)
    environment.setdefault("OMP_NUM_THREADS", str(max(1, usable_cores() // count)))
    if torch.cuda.is_available():
        visible = environment.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(torch.cuda.device_count())))
        devices = visible.split(",")
        environment["CUDA_VISIBLE_DEVICES"] = devices[number % len(devices)]
    return environment


@contextmanager
def _progress(study: Study, cells: Sequence[Cell]) -> Iterator[None]:
    """A bar over the cells, fed by the study's folder alone, so that it shows what other workers do as well."""
    done = threading.Event()

    def watch() -> None:
        with tqdm(total=len(cells), desc="study", unit="cell", disable=None) as bar:
            while True:
                last = done.wait(_REFRESH_SECONDS)
                bar.n = sum(study.is_finished(cell) for cell in cells)
                unfinished = (cell for cell in cells if not study.is_finished(cell))
                busy = [cell for cell in unfinished if claims.is_held(study.cell_folder(cell))]
                bar.set_postfix_str("; ".join(state(study, cell) for cell in busy))
                if last:
                    return

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _tell(study: Study, cells: Sequence[Cell], earlier: Failures) -> None:
    """Say where the results lie and what is missing.

    Raises:
        UserError: cells have failed, or were left by workers that ended too early.
    """
    print(f"study: {study.folder}")
    failed: list[Cell] = []
    busy: list[Cell] = []
    left: list[Cell] = []
    for cell in (cell for cell in cells if not study.is_finished(cell)):
        folder = study.cell_folder(cell)
        (failed if has_failed(study, cell, earlier) else busy if claims.is_held(folder) else left).append(cell)
    if busy:
        names = ", ".join(cell.name for cell in busy)
        print(f"others still work on {names}: run the command again for the complete tables")
    if failed:
        folder = study.cell_folder(failed[0])
        raise UserError(
            f"{len(failed)} of {len(cells)} cells failed, the first of them {failed[0].name} "
            f"({read_json(folder / FAILURE)['reason']}; see {folder / 'cell.log'}): mend the cause and run the command "
            "again, which repeats failed cells alone"
        )
    if left:
        raise UserError(
            f"{len(left)} of {len(cells)} cells are left: workers ended too early, {study.folder / 'workers'} holds "
            "what they printed; run the command again, perhaps with fewer --workers"
        )
