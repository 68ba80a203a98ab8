"""``audio-lrp`` in a process that ends with the one that started it, however that ends.

``python -m audio_lrp.study.supervised COMMAND ...`` with a pipe as standard input that its parent keeps open: a study
that is killed must not leave a training behind that goes on writing into a cell which another worker has taken.
"""

import os
import runpy
import threading


def _end_with_parent() -> None:
    os.read(0, 1)  # until the pipe's other end is closed; sys.stdin would hold a lock that Python's end waits for
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=_end_with_parent, daemon=True).start()
    runpy.run_module("audio_lrp", run_name="__main__")
