"""A study's measurements on a single checkpoint and any corpus: tests of explanations, and frequency scaling."""

import json
import sys
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from tqdm import tqdm

from audio_lrp import __version__
from audio_lrp.attribution.composites import composite_by_name
from audio_lrp.callbacks.publishing import write_rows
from audio_lrp.checkpoints import DESCRIPTION, instantiated, load_network, read_checkpoint
from audio_lrp.data import CorpusDataModule, Spectrogram
from audio_lrp.data.identity import speakers_among, trained_on
from audio_lrp.data.tasks import TASKS
from audio_lrp.errors import UsageError, UserError, parse_yaml
from audio_lrp.study.budget import SyntheticSize, find_budget, load_budget
from audio_lrp.study.charts import draw
from audio_lrp.study.corpora import find_corpus
from audio_lrp.study.explanations import explain_all
from audio_lrp.study.measurements import frequency_scaling, genders
from audio_lrp.study.rows import write_table
from audio_lrp.study.subject import CHUNK, Subject, data_for, ready
from audio_lrp.study.tables import Tables, measured
from audio_lrp.utils.files import replacing

_BATCH: Final = 20
"""Explained clips from one step of the progress bar to the next."""

_SYNTHETIC: Final = SyntheticSize(speakers=12, repetitions=10)


@dataclass(frozen=True)
class Source:
    """A checkpoint, and the recordings to measure it on.

    Attributes:
        checkpoint: a ``.ckpt`` file of ``audio-lrp fit``.
        corpus: ``"synthetic"`` or a corpus's folder, all of whose recordings are meant; None: the test speakers of the
            checkpoint's own run.
        exclude: a list of recordings of the corpus to leave out, as `audio_lrp.data.corpora.exclusions` describes.
        plugins: packages whose classes the checkpoint may name (see `audio_lrp.checkpoints.load_network`).
    """

    checkpoint: Path
    corpus: str | None = None
    exclude: str | None = None
    plugins: Collection[str] = ()

    def subject(self) -> Subject:
        """The network and the recordings.

        Raises:
            UserError: the checkpoint or the corpus cannot be used.
            UsageError: there is no such corpus.
        """
        saved = load_network(self.checkpoint, self.plugins)
        if self.corpus is None:
            if self.exclude is not None:
                raise UsageError("--exclude is for a --corpus: the run's own recordings are those of its configuration")
            return ready(saved, self._own_data())
        tasks = [task.name for task in TASKS.values() if task.classes == saved.class_names]
        if not tasks:
            raise UserError(
                f"{self.checkpoint} knows the classes {', '.join(saved.class_names)}, of which no corpus tells: "
                f"leave --corpus out, or give a checkpoint of one of the tasks {', '.join(TASKS)}"
            )
        corpus = find_corpus(self.corpus, _SYNTHETIC, self.exclude).corpus
        return ready(saved, data_for(saved, corpus, tasks[0], split="all"))

    def _own_data(self) -> CorpusDataModule:
        """The data of the checkpoint's configuration, without further corpora, which are trained on alone."""
        text = read_checkpoint(self.checkpoint).get(DESCRIPTION, {}).get("config")
        settings = parse_yaml(text).get("data") if isinstance(text, str) else None
        if not isinstance(settings, dict):
            raise UserError(f"{self.checkpoint} does not say what recordings it was trained on: name some by --corpus")
        settings.get("init_args", {}).pop("training_corpora", None)
        data = instantiated(CorpusDataModule, settings, self.plugins)
        data.batch_size = CHUNK
        return data


def measure_faithfulness(source: Source, output: Path | None, composite: str, clips: int) -> tuple[Path, Tables]:
    """Explain clips by LRP, spread evenly over the classes, and test the explanations as studies do.

    Args:
        source: the checkpoint and the recordings.
        output: folder for tables and figures, new or empty; by default ``faithfulness-NAME`` of the corpus's folder.
        composite: name of the LRP preset.
        clips: how many clips; all where there are fewer.

    Returns:
        The folder, and the tables in it (see `audio_lrp.study`).

    Raises:
        UserError: the checkpoint, the corpus, an option or the folder is wrong.
    """
    composite_by_name(composite, bounds=(0.0, 1.0))  # tells an unknown name
    if clips < 1:
        raise UsageError(f"--clips is {clips}: give the number of recordings to explain, 1 or more")
    subject = source.subject()
    clips = min(clips, len(subject.data.splits["test"]))
    batches = tqdm(
        subject.explained_batches(clips, _BATCH), "explaining", total=-(-clips // _BATCH), unit="batch", disable=None
    )

    def measure(folder: Path) -> None:
        explain_all(subject, batches, composite, load_budget(find_budget("short")), folder)

    return _written(source, subject, output, "faithfulness", measure, {"explained": clips, "composite": composite})


def measure_scaling(source: Source, output: Path | None) -> tuple[Path, Tables]:
    """Test the network on spectrograms whose frequency axis is scaled to the pitch of the other gender, and controls.

    Args:
        source: the checkpoint and the recordings.
        output: folder for tables and figures, new or empty; by default ``scaling-NAME`` of the corpus's folder.

    Returns:
        The folder, and the tables in it (see `audio_lrp.study`).

    Raises:
        UserError: the checkpoint, the corpus or the folder is wrong, the network hears waveforms, or the corpus does
            not tell genders.
    """
    subject = source.subject()
    data = subject.data
    if not isinstance(data.input_representation, Spectrogram):
        raise UserError(
            f"{source.checkpoint} is of a network that takes waveforms: the frequency axis of spectrograms is scaled, "
            "so give a checkpoint of a network that takes those, such as AlexNet"
        )
    of_corpus = genders(data.corpus)
    of_tested = [of_corpus[index] for index in data.splits["test"].index.tolist()]
    if max(of_tested) < 0:
        raise UserError(
            f"the corpus {data.corpus.name} at {data.corpus.root} does not say the gender of its speakers, which "
            "decides whether a voice is scaled up or down: complete its metadata or choose another --corpus"
        )
    if unknown := sum(gender < 0 for gender in of_tested):
        _say(f"{unknown} of {len(of_tested)} recordings are left out: the gender of their speakers is not known")
    batches = tqdm(subject.test_batches(), "scaling", total=-(-len(of_tested) // CHUNK), unit="batch", disable=None)

    def measure(folder: Path) -> None:
        write_rows(folder / "frequency_scaling.csv", frequency_scaling(subject, batches))

    return _written(source, subject, output, "scaling", measure, {})


def _written(
    source: Source,
    subject: Subject,
    output: Path | None,
    what: str,
    measure: Callable[[Path], None],
    facts: dict[str, Any],
) -> tuple[Path, Tables]:
    """Measure, and write tables, figures and what they are of."""
    data = subject.data
    folder = output or Path(f"{what}-{data.corpus.root.resolve().name}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} already exists and is not an empty folder: choose another place with --output")
    speakers = {data.corpus.recordings[index].speaker for index in data.splits["test"].index.tolist()}
    part = "all" if data.split == "all" else f"test split of fold {data.fold}"
    _say(f"{len(data.splits['test'])} recordings of {len(speakers)} speakers ({part})")
    _tell_of_known_voices(source, data)
    with TemporaryDirectory() as raw:
        measure(Path(raw))
        network = type(subject.network).__name__
        found = measured([(Path(raw), {"network": network.lower(), "task": data.task.name})])
    tables = {name: rows for name, rows in found.items() if rows}
    for name, rows in tables.items():
        write_table(folder / "tables" / name, rows)
    draw(tables, folder / "figures")
    about = {
        "checkpoint": str(source.checkpoint),
        "network": network,
        "task": data.task.name,
        "corpus": str(data.corpus.root),
        "recordings": len(data.splits["test"]),
        "speakers": len(speakers),
        "part": part,
        **facts,
        "audio_lrp": __version__,
    }
    with replacing(folder / "about.json", "choose another place with --output") as path:
        path.write_text(json.dumps(about, indent=2) + "\n")
    return folder, tables


def _tell_of_known_voices(source: Source, data: CorpusDataModule) -> None:
    known = trained_on(read_checkpoint(source.checkpoint).get(DESCRIPTION))
    if known is None:
        _say("whether the network was trained on some of them is not known: its checkpoint does not say")
    elif heard := speakers_among(known, data.corpus, data.splits["test"]):
        _say(f"warning: the network was trained on {len(heard)} of these speakers: they say nothing of new voices")


def _say(text: str) -> None:
    print(f"audio-lrp: {text}", file=sys.stderr)
