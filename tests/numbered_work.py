"""Work for the job queue that takes no time: it notes which jobs were done."""

import multiprocessing
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from audio_lrp.jobs import Queue, open_study


@dataclass
class NumberedWork:
    """Jobs by their numbers; a job whose number is in ``failing`` raises what is given for it."""

    storage: str
    count: int = 6
    folder: Path = Path()
    failing: dict[str, BaseException] = field(default_factory=dict)
    seconds: float = 0.02
    done: list[str] = field(default_factory=list)
    name: str = "numbers"
    storage_of_workers: str = ""

    @property
    def jobs(self) -> Sequence[str]:
        return [str(number) for number in range(self.count)]

    def open(self) -> optuna.Study:
        in_worker = multiprocessing.parent_process() is not None
        url = self.storage_of_workers if in_worker and self.storage_of_workers else self.storage
        return open_study(url, self.name, {"about": "numbers"}, sampler=optuna.samplers.RandomSampler(0))

    def queue(self, ignored: frozenset[int] = frozenset()) -> Queue:
        return Queue(self.open(), ignored)

    def unfinished(self, attempts: Sequence[FrozenTrial]) -> Sequence[str]:
        return self.jobs

    def parameters(self, job: str) -> Mapping[str, Any]:
        return {}

    def run(self, attempt: optuna.Trial, job: str) -> float:
        value = attempt.suggest_float("x", 0, 1)
        time.sleep(self.seconds)
        if job in self.failing:
            raise self.failing[job]
        self.done.append(job)
        return value

    def progress(self, attempts: Sequence[FrozenTrial]) -> tuple[int, str]:
        return len(attempts), ""
