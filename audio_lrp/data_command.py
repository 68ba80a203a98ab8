"""Corpora on disk: ``audio-lrp data download``."""

from collections.abc import Sequence
from pathlib import Path

from audio_lrp.arguments import CommandParser
from audio_lrp.data import AudioMNIST
from audio_lrp.data.audiomnist_download import AUDIOMNIST, download_audiomnist


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line ``audio-lrp data``.

    Args:
        args: its arguments; by default the process's.

    Raises:
        UserError: what the user can mend.
    """
    options = _parser().parse_args(args)
    download(options.root, options.mirror)


def download(root: Path, mirror: str | None) -> None:
    """Download AudioMNIST and say what is there."""
    download_audiomnist(root, mirror)
    corpus = AudioMNIST(root)
    speakers = {recording.speaker for recording in corpus.recordings}
    print(f"{root}: {len(corpus.recordings):,} recordings of {len(speakers)} speakers")
    print(f"to train on them: audio-lrp fit --config audionet_digit --data.root {root}")


def _parser() -> CommandParser:
    parser = CommandParser(prog="audio-lrp data", description="Get corpora of spoken digits.")
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    fetch = actions.add_parser("download", help="download a corpus", description=f"Download {AUDIOMNIST.url}")
    fetch.add_argument("corpus", choices=["audiomnist"], help="30,000 recordings of 60 speakers, 1 GB")
    fetch.add_argument(
        "--root", type=Path, default=Path("AudioMNIST"), metavar="FOLDER", help="where it goes (AudioMNIST)"
    )
    fetch.add_argument("--mirror", metavar="URL", help="another address of the same archive")
    return parser
