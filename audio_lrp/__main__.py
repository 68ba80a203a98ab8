"""Entry of the command ``audio-lrp`` and of ``python -m audio_lrp``."""

import os
import shutil
import sys
import warnings
from io import TextIOWrapper

from audio_lrp.commands import main as run_command_line
from audio_lrp.utils.allocator import keep_freed_memory


def main() -> None:
    """Run the command line on the process's arguments."""
    # Huge pages spare most page faults of big tensors on CPUs (1.5 to 2.5 times AudioNet's speed).
    # PyTorch reads the variable once, when it is imported.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    # Commands write files and open no window: a notebook's or desktop's backend may be missing here.
    os.environ["MPLBACKEND"] = "agg"
    # Figures look as they were meant: a user's own settings may ask for LaTeX or fonts that are not here.
    os.environ["MATPLOTLIBRC"] = os.devnull
    if "error" in os.environ.get("PYTHONWARNINGS", ""):
        _forgive_warnings()
    if isinstance(sys.stdout, TextIOWrapper) and sys.stdout.encoding.lower() != "utf-8":
        sys.stdout.reconfigure(errors="backslashreplace")  # for letters in names that ASCII, say, does not have
    if shutil.get_terminal_size().columns < 2:
        os.environ["COLUMNS"] = "80"  # Lightning's table of a test divides by half of it, whole numbers
    keep_freed_memory()
    run_command_line()


def _forgive_warnings() -> None:
    """Show warnings as Python does by itself, here and in processes to come: others' would end every command."""
    del os.environ["PYTHONWARNINGS"]
    sys.warnoptions.clear()
    warnings.simplefilter("default")
    for category in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
        warnings.simplefilter("ignore", category)


if __name__ == "__main__":
    main()
