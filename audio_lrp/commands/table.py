"""All commands by what people do with them; each is a module of its own that is imported when it is called."""

from typing import Final, NamedTuple

from audio_lrp.training.help import DESCRIPTIONS

LIGHTNING: Final = "audio_lrp.training.lightning_cli"


class Command(NamedTuple):
    """One command.

    Attributes:
        group: what people want when they call it; commands of a group stand together.
        help: what it does, in 60 characters at most.
        module: where its ``main(args)`` is, and ``parser()`` except for Lightning's commands; None for completion,
            which reads this table and so cannot stand in it.
    """

    group: str
    help: str
    module: str | None


COMMANDS: Final = {
    "fit": Command("train", DESCRIPTIONS["fit"], LIGHTNING),
    "sweep": Command("train", "search hyperparameters without W&B's server", "audio_lrp.commands.sweep"),
    "validate": Command("test", DESCRIPTIONS["validate"], LIGHTNING),
    "test": Command("test", DESCRIPTIONS["test"], LIGHTNING),
    "predict": Command("test", DESCRIPTIONS["predict"], LIGHTNING),
    "faithfulness": Command(
        "test", "test a checkpoint's relevance maps on any corpus", "audio_lrp.commands.faithfulness"
    ),
    "scaling": Command("test", "test a checkpoint at the other gender's pitch", "audio_lrp.commands.scaling"),
    "explain": Command("explain", "show what a checkpoint hears in recordings", "audio_lrp.commands.explain"),
    "report": Command("explain", "one HTML file about a run or a study, with sounds", "audio_lrp.commands.report"),
    "study": Command("repeat", "the paper's experiments, on any corpus", "audio_lrp.commands.study"),
    "data": Command("data", "download AudioMNIST; check a corpus for faults", "audio_lrp.commands.data"),
    "dashboard": Command("share", "build a W&B workspace and report", "audio_lrp.commands.dashboard"),
    "sync": Command("share", "upload runs to W&B, moved ones as well", "audio_lrp.commands.sync"),
    "doctor": Command("set up", "versions, devices, caches, and what is wrong", "audio_lrp.commands.doctor"),
    "completion": Command("set up", "let the Tab key complete: bash, zsh, fish", None),
}
"""Every command by name, in the order of the help."""


def overview() -> str:
    """The help of ``audio-lrp`` itself, within one screen of 80 columns."""
    lines = ["usage: audio-lrp COMMAND [OPTION...]", ""]
    heading = None
    for name, command in COMMANDS.items():
        lines.append(f"{command.group if command.group != heading else '':<9}{name:<13}{command.help}")
        heading = command.group
    return "\n".join([*lines, "", "audio-lrp COMMAND --help tells a command's options."])
