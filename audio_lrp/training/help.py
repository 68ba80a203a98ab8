"""The help of Lightning's commands: how they are called, and their options by what they are about."""

from argparse import ArgumentParser
from typing import Final

DESCRIPTIONS: Final = {
    "fit": "train a network: audio-lrp fit --config quickstart",
    "validate": "accuracy of a checkpoint on the validation speakers",
    "test": "accuracy of a checkpoint on the test speakers",
    "predict": "a table of predictions for the test recordings",
}
"""Lightning's commands, and what they do."""

_TITLES: Final = {
    "help": "what to run",
    "ckpt_path": "checkpoint",
    "run": "where everything is written",
    "data": "recordings: a class, and its options as --data.OPTION",
    "model": "network and training: a class, and its options as --model.OPTION, --model.network.OPTION",
    "trainer": "Lightning's trainer",
}
"""Title of each group of options by the first part of its options' names, in the order of the help."""

_CLASSES: Final = (
    "Options win over configurations, and what comes later over what came earlier. --print_config shows what would "
    "run; --data.help CLASS, --model.help CLASS and --trainer.callbacks.help CLASS tell the options of a class."
)


def parser_settings(command: str) -> dict[str, str]:
    """Usage and description of one of Lightning's commands, as a parser's arguments."""
    start = "--config NAME..." if command == "fit" else "--ckpt_path FILE [--config NAME...]"
    description = DESCRIPTIONS[command]
    return {
        "usage": f"audio-lrp {command} {start} [OPTION...]",
        "description": f"{description[0].upper()}{description[1:]}. {_CLASSES}",
    }


def arrange(parser: ArgumentParser, command: str) -> None:
    """Order a parser's groups of options, most wanted first, and name them by what they are about.

    The links between options are left out: a value for one that follows from another is answered when it is given.
    """
    groups = {}
    for group in parser._action_groups:
        for action in group._group_actions if group.title != "Linked arguments" else ():
            groups[action.dest.split(".")[0]] = group
            if action.dest == "ckpt_path":
                action.help = (
                    "resumes a training: a file, or last with the run's own config.yaml as --config"
                    if command == "fit"
                    else "the trained network; it brings its run's configuration along"
                )
    parser._action_groups = [groups[subject] for subject in _TITLES]
    for subject, title in _TITLES.items():
        groups[subject].title = title
