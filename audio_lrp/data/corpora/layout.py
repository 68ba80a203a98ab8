"""Telling a corpus by the layout of its folder."""

from pathlib import Path

from audio_lrp.data.corpora.audiomnist import AudioMNIST
from audio_lrp.data.corpora.fsdd import FSDD
from audio_lrp.data.corpora.listing import Listing, visible_entries


def corpus_class(root: Path) -> type[AudioMNIST] | type[FSDD] | None:
    """Which corpus a folder's layout belongs to, ``None`` where it is neither's.

    Args:
        root: AudioMNIST has recordings in ``data/NN`` or ``NN``, the Free Spoken Digit Dataset all of them in
            ``recordings`` or the folder itself.

    Raises:
        UserError: the folder must not be read.
    """
    if (root / "data").is_dir():
        return AudioMNIST
    found = Listing()
    found.search(root)
    if (root / "recordings").is_dir() or found.paths:
        return FSDD
    if any(Path(entry).is_dir() and entry.name.isdigit() for entry in visible_entries(root)):
        return AudioMNIST
    return None
