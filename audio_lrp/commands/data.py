"""Corpora on disk: ``audio-lrp data download`` and ``audio-lrp data check``."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from audio_lrp.utils.arguments import CommandParser


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line ``audio-lrp data``.

    Args:
        args: its arguments; by default the process's.

    Raises:
        UserError: what the user can fix.
    """
    options = parser().parse_args(args)
    if options.action == "download":
        _download(options.root, options.mirror)
    else:
        from audio_lrp.data.inspection.check import check  # only now: it needs PyTorch, and seconds

        check(options.folder, options.exclude, options.output)


def _download(root: Path, mirror: str | None) -> None:
    """Download AudioMNIST and say what is there."""
    from audio_lrp.data import AudioMNIST
    from audio_lrp.data.corpora.audiomnist_download import AUDIOMNIST, download_audiomnist

    download_audiomnist(root, mirror)
    corpus = AudioMNIST(root)
    speakers = {recording.speaker for recording in corpus.recordings}
    found = f"{root}: {len(corpus.recordings):,} recordings of {len(speakers)} speakers"
    wanted = len(AUDIOMNIST.recordings())
    if len(corpus.recordings) != wanted:
        found += f", which were there already and are not AudioMNIST's {wanted:,}: for those, choose another --root"
    print(found)
    print(f"to train on them: audio-lrp fit --config audionet_digit --data.root {root}")


def parser() -> CommandParser:
    """What it takes from the command line."""
    parser = CommandParser(prog="audio-lrp data", description="Get corpora of spoken digits, and check them.")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    _add_download(
        actions.add_parser(
            "download",
            help="download AudioMNIST",
            description="Download AudioMNIST from github.com/soerenab/AudioMNIST, and check that it is whole.",
        )
    )
    _add_check(
        actions.add_parser(
            "check",
            help="look for what is wrong with a corpus",
            description="Look for recordings that are misnamed, corrupt, copies, silent, much quieter than the "
            "speaker's others, clipped, too long, at another rate or with a DC offset, for missing ones, and for "
            "faults in the metadata.",
        )
    )
    return parser


def _add_download(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("corpus", choices=["audiomnist"], help="30,000 recordings of 60 speakers, 1 GB")
    parser.add_argument(
        "--root", type=Path, default=Path("AudioMNIST"), metavar="FOLDER", help="where it goes (AudioMNIST)"
    )
    parser.add_argument("--mirror", metavar="URL", help="another address of the same archive")


def _add_check(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="a corpus in AudioMNIST's or FSDD's layout")
    parser.add_argument("--exclude", metavar="FILE", help="a list of recordings to leave out, or audiomnist")
    parser.add_argument(
        "--output", type=Path, default=Path("corpus-check"), metavar="FOLDER", help="for the report (corpus-check)"
    )
