"""What the network listens to: maps and sounds, perturbation curves, the conservation ledger."""

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

import numpy as np
import soundfile
from matplotlib.image import imsave
from numpy.typing import NDArray

from audio_lrp.data.representation import SAMPLE_RATE
from audio_lrp.html.blocks import Block, Charts, Clip, Clips, Paragraph, Section, Table, data_uri, file_uri
from audio_lrp.html.charts import Axis, Chart, Line, line_chart, stacked_bars
from audio_lrp.report.explained import Explained
from audio_lrp.report.run_log import LoggedClip, LoggedExplanation, RunLog
from audio_lrp.report.training_section import Clock, score_charts
from audio_lrp.visualization.clips import DrawnClip

RED_AND_BLUE = (
    "Red is evidence for the explained class, blue evidence against it; both can be heard beside the recording. "
    "The sounds of a clip are equally loud."
)

_NAMES = {
    "map": "relevance on the network's input",
    "time_frequency": "relevance in time and frequency",
    "original": "recording",
    "positive": "evidence for the class",
    "negative": "evidence against it",
}
_SHOWN_EPOCHS = 5
_NUM_LOGGED = 4


def clips_section(log: RunLog, explained: Explained | None, reason: str, clock: Clock) -> Section:
    """Maps with players: computed anew, else as they were logged; and one clip's maps over the epochs."""
    blocks: list[Block] = [Paragraph(RED_AND_BLUE)]
    logged = _last(log, "clips")
    if explained is not None:
        text = f"Test clips, explained by the checkpoint {explained.checkpoint.name} with {explained.composite}:"
        blocks.append(Paragraph(text))
        blocks += [Paragraph(note, warning=True) for note in explained.notes]
        blocks.append(Clips([drawn_clip(clip) for clip in explained.clips]))
    elif logged is not None:
        when = f"{'test' if logged.is_test else 'validation'} clips after {clock.name(logged.step)}"
        blocks.append(Paragraph(f"As logged, {when}; nothing was computed anew: {reason}.", warning=True))
        blocks.append(Clips([_logged_clip(clip) for clip in logged.clips[:_NUM_LOGGED]]))
    else:
        blocks.append(Paragraph(f"There are no logged relevance maps, and none computed anew: {reason}.", warning=True))
    in_training = [item for item in log.explanations if item.clips and not item.is_test]
    if len(in_training) > 1:
        moments = [_moment(item, clock) for item in _evenly(in_training, _SHOWN_EPOCHS)]
        blocks += [Paragraph("The same validation clip while the network trained:"), Clips(moments, num_open=1)]
    return Section("explanations", "What it listens to", blocks)


def perturbation_section(log: RunLog, clock: Clock) -> Section:
    """Perturbation curves of the last explanation, and the scores over the epochs."""
    last = _last(log, "curves")
    if last is None:
        text = "No perturbation curves were logged: LRPCallback computes them."
        return Section("perturbation", "Perturbation curves", [Paragraph(text, warning=True)])
    orders = list(dict.fromkeys(row["order"] for row in last.curves))
    charts = [_curves(last, orders, quantity) for quantity in ("accuracy", "probability", "logit")]
    when = f"{'Test' if last.is_test else 'Validation'} clips after {clock.name(last.step)}."
    blocks: list[Block] = [
        Paragraph(
            f"{when} The input is removed step by step, most relevant first (morf), at random, or loudest first "
            "(amplitude). An explanation is trustworthy where the network's answer falls faster along morf than along "
            "the others."
        ),
        Charts(charts),
    ]
    tested = next((item for item in reversed(log.explanations) if item.is_test and item.scores), None)
    validated = {clock.at(item.step): item.scores for item in log.explanations if not item.is_test and item.scores}
    blocks.append(_score_table(tested, validated))
    if len(validated) > 1:
        blocks.append(Paragraph("Scores of the validation clips over time:"))
        blocks.append(Charts(score_charts(validated, orders, clock)))
    return Section("perturbation", "Perturbation curves", blocks)


def ledger_section(log: RunLog, explained: Explained | None, reason: str) -> Section:
    """Where each layer's relevance went."""
    logged = _last(log, "ledger")
    rows: Sequence[Mapping[str, Any]] = (explained.ledger if explained else None) or (logged.ledger if logged else ())
    title = "Conservation ledger"
    if not rows:
        text = reason or "the composite's rules keep no accounts"
        return Section("ledger", title, [Paragraph(f"There is no ledger: {text}.", warning=True)])
    cells = [[str(row[key]) for key in ("layer", "type", "rule")] + _amounts(row) for row in reversed(rows)]
    columns = ["layer", "type", "rule", "from above", "to inputs", "to biases", "to the stabilizer", "gap"]
    text = (
        "From the output, on top, down to the input: what each layer passed on and what its biases and the stabilizer "
        "took. The gap is what no account explains, rounding alone: more than 1e-4 tells of a fault."
    )
    table = Table("From the output to the input", columns, cells)
    return Section("ledger", title, [Paragraph(text), Charts([ledger_chart(rows, "relevance by layer")]), table])


def ledger_chart(rows: Sequence[Mapping[str, Any]], title: str) -> Chart:
    """What became of each layer's relevance, the output's layer on top."""
    bars = {
        f"{row['layer']}  {row['rule']}": [float(row[key]) for key in ("lower", "to_bias", "to_stabilizer")]
        for row in reversed(rows)
    }
    return stacked_bars(
        title, ["to inputs", "to biases", "to the stabilizer"], bars, Axis("relevance, mean over the clips")
    )


def _amounts(row: Mapping[str, Any]) -> list[str]:
    return [f"{float(row[key]):.4g}" for key in ("upper", "lower", "to_bias", "to_stabilizer", "gap")]


def _curves(explanation: LoggedExplanation, orders: Sequence[str], quantity: str) -> Chart:
    lines = []
    for order in orders:
        points = sorted(
            (float(row["fraction"]), float(row[quantity])) for row in explanation.curves if row["order"] == order
        )
        lines.append(Line(order, [x for x, _ in points], [y for _, y in points]))
    removed = Axis("removed share of the input", percent=True, root=True, limits=(0, max(line.x[-1] for line in lines)))
    share = quantity != "logit"
    return line_chart(quantity, lines, removed, Axis(quantity, percent=share, limits=(0, 1) if share else None))


def _score_table(tested: LoggedExplanation | None, validated: Mapping[float, Mapping[str, float]]) -> Table:
    columns = {"test": tested.scores if tested else {}, "validation": validated[max(validated)] if validated else {}}
    columns = {name: scores for name, scores in columns.items() if scores}
    names = sorted({name for scores in columns.values() for name in scores})
    rows = [[name, *(f"{scores[name]:.4g}" if name in scores else "" for scores in columns.values())] for name in names]
    return Table("Scores of the explanations at the end", ["score", *columns], rows)


def _last(log: RunLog, part: str) -> LoggedExplanation | None:
    """The last explanation that has a part, one of test clips if there is any."""
    having = [item for item in log.explanations if getattr(item, part)]
    return next((item for item in reversed(having) if item.is_test), having[-1] if having else None)


def drawn_clip(clip: DrawnClip) -> Clip:
    """A clip that was explained anew."""
    return Clip(
        _classes(clip.caption),
        {_NAMES.get(name, name): _png_uri(image) for name, image in clip.figures.items()},
        {_NAMES.get(name, name): _wav_uri(sound) for name, sound in clip.sounds.items()},
    )


def _logged_clip(clip: LoggedClip) -> Clip:
    return Clip(
        _classes(clip.caption),
        {_NAMES.get(name, name): file_uri(path) for name, path in clip.pictures.items()},
        {_NAMES.get(name, name): file_uri(path) for name, path in clip.sounds.items()},
    )


def _classes(caption: str) -> str:
    """A caption without the composite at its end, which all captions share and the pictures' titles have."""
    return caption.rpartition(" | ")[0]


def _moment(explanation: LoggedExplanation, clock: Clock) -> Clip:
    clip = explanation.clips[0]
    pictures = {_NAMES["map"]: file_uri(clip.pictures["map"])} if "map" in clip.pictures else {}
    return Clip(f"{clock.name(explanation.step)}: {_classes(clip.caption)}".removesuffix(": "), pictures)


def _evenly(items: Sequence[LoggedExplanation], count: int) -> list[LoggedExplanation]:
    """So many of the items, the first and the last among them."""
    chosen = np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int)
    return [items[index] for index in chosen]


def _png_uri(image: NDArray[np.uint8]) -> str:
    file = BytesIO()
    imsave(file, image, format="png")
    return data_uri(file.getvalue(), ".png")


def _wav_uri(sound: NDArray[np.float32]) -> str:
    file = BytesIO()
    soundfile.write(file, sound, SAMPLE_RATE, subtype="PCM_16", format="WAV")
    return data_uri(file.getvalue(), ".wav")
