"""Budgets of studies, how much each cell may spend: the shipped ones by name, or a YAML file of your own."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import jsonargparse

from audio_lrp.constants import BUDGETS
from audio_lrp.data.corpora.synthetic import MAX_SPEAKERS
from audio_lrp.errors import UsageError
from audio_lrp.faithfulness.curves import check_fractions
from audio_lrp.faithfulness.methods import METHODS
from audio_lrp.study.recipe import RECIPES
from audio_lrp.utils.nearest import did_you_mean, nearest_path

COMPARED_FRACTIONS: Final = (0.01, 0.05, 0.1)
"""Fractions of a clip at which orders of removal are compared."""

_FOLDER: Final = Path(__file__).parent / "budgets"


@dataclass(frozen=True)
class SyntheticSize:
    """Size of the synthetic corpus.

    Attributes:
        speakers: number of speakers.
        repetitions: utterances of each digit by each speaker.
    """

    speakers: int
    repetitions: int


@dataclass(frozen=True)
class Budget:
    """What is spent on each cell of a study.

    Attributes:
        steps: optimizer steps by recipe, e.g. ``{"alexnet_digit": 1200}``.
        batch_size: clips in a training batch.
        validate_every: steps from one validation to the next; divides all steps.
        generated_folds: number of folds for corpora without published ones.
        explained_clips: test clips that are explained and perturbed; ``None``: all.
        fractions: fractions of a clip at which perturbation curves are followed, rising from 0.
        random_orders: random orders of removal that are averaged.
        competitors: attribution methods besides LRP by whose relevance clips are removed as well.
        synthetic: size of the synthetic corpus.
        synthetic_voices: synthetic speakers whose digits, one recording of each, are trained on beside the corpus's
            own; the synthetic corpus goes without.
    """

    steps: dict[str, int]
    batch_size: int
    validate_every: int
    generated_folds: int
    explained_clips: int | None
    fractions: list[float]
    random_orders: int
    competitors: list[str]
    synthetic: SyntheticSize
    synthetic_voices: int = 0


def find_budget(name: str) -> Path:
    """The file of a shipped budget, or the YAML file at this path.

    Raises:
        UsageError: there is neither.
    """
    path = Path(name).expanduser()
    if name in BUDGETS:
        return _FOLDER / f"{name}.yaml"
    if path.suffix == ".yaml" and path.is_file():
        return path
    choices = f"choose {', '.join(BUDGETS)}, or give a YAML file of your own"
    raise UsageError(f"there is no budget {name!r}: {did_you_mean(name, BUDGETS) or nearest_path(path) or choices}")


def load_budget(path: Path) -> Budget:
    """Read a budget.

    Raises:
        UsageError: the file is not YAML, or a value is missing, unknown, or out of its range.
    """
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Budget)
    try:
        budget: Budget = Budget(**vars(parser.instantiate_classes(parser.parse_path(str(path)))))
    except (jsonargparse.ArgumentError, TypeError, ValueError) as error:
        raise UsageError(f"the budget {path} cannot be used: {' '.join(str(error).split())[:300]}") from error
    missing = [fraction for fraction in COMPARED_FRACTIONS if fraction not in budget.fractions]
    if missing:
        raise UsageError(f"the budget {path} lacks the fraction {missing[0]:g}, at which orders are compared")
    check_fractions(budget.fractions)
    unknown = [name for name in budget.competitors if name not in METHODS]
    if unknown:
        raise UsageError(f"the budget {path} names {unknown[0]!r} as a competitor: choose from {', '.join(METHODS)}")
    unknown = [name for name in budget.steps if name not in RECIPES]
    if unknown:
        raise UsageError(f"the budget {path} has steps for {unknown[0]!r}: choose from {', '.join(RECIPES)}")
    counts = {name: getattr(budget, name) for name in ("batch_size", "validate_every", "generated_folds")}
    counts["explained_clips"] = budget.explained_clips if budget.explained_clips is not None else 1
    for name, count in counts.items():
        if count < 1:
            raise UsageError(f"the budget {path} has {count} for {name}: give a number above 0")
    wrong = [name for name, steps in budget.steps.items() if steps < 1 or steps % budget.validate_every]
    if wrong:
        raise UsageError(
            f"the budget {path} has {budget.steps[wrong[0]]} steps for {wrong[0]}: pass a multiple of validate_every "
            f"({budget.validate_every}), so that the last step is validated"
        )
    if budget.synthetic_voices and not 2 <= budget.synthetic_voices <= MAX_SPEAKERS:
        raise UsageError(
            f"the budget {path} has {budget.synthetic_voices} synthetic_voices: give 0, or 2 to {MAX_SPEAKERS}"
        )
    return budget
