"""Working through the cells of a study, one claim at a time."""

import json
import platform
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import torch

from audio_lrp import __version__
from audio_lrp.study import claims
from audio_lrp.study.claims import Claim, ClaimLostError
from audio_lrp.study.measurements import measure
from audio_lrp.study.plan import FAILURE, RESULT, Cell, Study
from audio_lrp.study.training import LAST, LOG, best_validation_accuracy, train
from audio_lrp.utils.files import replacing

Failures = dict[Cell, tuple[int, int]]


def work(study: Study, cells: Sequence[Cell]) -> None:
    """Finish every cell that nobody else is working on and that has not failed since this call began."""
    earlier = failures(study, cells)
    while (found := _claim_next(study, cells, earlier)) is not None:
        cell, claim = found
        with claim:
            _run(study, cell, claim)


def _claim_next(study: Study, cells: Sequence[Cell], earlier: Failures) -> tuple[Cell, Claim] | None:
    for cell in cells:
        if study.is_finished(cell) or has_failed(study, cell, earlier):
            continue
        claim = claims.take(study.cell_folder(cell))
        if claim is None:
            continue
        if not study.is_finished(cell):  # else its holder finished between the two looks
            return cell, claim
        claim.release()
    return None


def _run(study: Study, cell: Cell, claim: Claim) -> None:
    """Train and measure a cell; what goes wrong is written down and does not stop the others."""
    folder = study.cell_folder(cell)
    try:
        train(study, cell, claim)
        accuracy = measure(study, cell)
        claim.check()
        result = {
            "network": cell.network,
            "task": cell.task,
            "fold": cell.fold,
            **accuracy,
            "validation_accuracy": best_validation_accuracy(folder),
            "steps": study.budget.steps[cell.recipe],
            "composite": study.composite,
            "audio_lrp": __version__,
            "torch": str(torch.__version__),
            "machine": platform.node(),
        }
        _write_json(folder / RESULT, result)
    except ClaimLostError:
        return
    except Exception as error:
        with suppress(OSError), (folder / LOG).open("a") as log:  # a full disk is told of below
            traceback.print_exc(file=log)
        reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        _write_json(folder / FAILURE, {"reason": reason})
        return
    for leftover in (FAILURE, LAST):  # a finished cell needs neither; the optimizer's state takes most of the space
        (folder / leftover).unlink(missing_ok=True)


def _write_json(path: Path, content: Mapping[str, object]) -> None:
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n")


def failures(study: Study, cells: Sequence[Cell]) -> Failures:
    """What tells the record of each cell's last failure from that of any other; by no time, as clocks are set."""
    found: Failures = {}
    for cell in cells:
        with suppress(FileNotFoundError):
            status = (study.cell_folder(cell) / FAILURE).stat()
            found[cell] = (status.st_ino, status.st_mtime_ns)
    return found


def has_failed(study: Study, cell: Cell, earlier: Failures) -> bool:
    """Whether a cell has failed since a look at the failures."""
    return failures(study, [cell]).get(cell, earlier.get(cell)) != earlier.get(cell)


def state(study: Study, cell: Cell) -> str:
    """What is happening in a cell that somebody works on."""
    folder = study.cell_folder(cell)
    metrics = sorted(folder.glob("training/*/metrics.csv"))
    try:
        header, *rows = metrics[-1].read_text().splitlines()
        step = int(rows[-1].split(",")[header.split(",").index("step")]) + 1
    except (IndexError, ValueError, OSError):
        return f"{cell.name}: starting"
    steps = study.budget.steps[cell.recipe]
    return f"{cell.name}: explaining" if step >= steps else f"{cell.name}: step {step} of {steps}"
