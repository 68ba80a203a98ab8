"""Archives of AudioMNIST in small, as the release on the web is made."""

import io
import json
import wave
import zipfile

import numpy as np

from audio_lrp.data.corpora.audiomnist_download import Release

SMALL = Release("https://example.org/archive/0123.zip", speakers=3, females=1, repetitions=2, sample_rate=48_000)
TOP = "AudioMNIST-0123/"
METADATA = "audioMNIST_meta.txt"
Archive = dict[str, bytes]


def recording(seed: int = 0, rate: int = 48_000, channels: int = 1, width: int = 2) -> bytes:
    samples = np.random.default_rng(seed).integers(-500, 500, 2400).astype("<i2")
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setparams((channels, width, rate, 0, "NONE", ""))
        writer.writeframes(samples.tobytes())
    return file.getvalue()


def genders(females: int = 1, speakers: int = 3) -> bytes:
    facts = {f"{i:02d}": {"gender": "female" if i <= females else "male"} for i in range(1, speakers + 1)}
    return json.dumps(facts).encode()


def contents(release: Release = SMALL) -> Archive:
    files = {f"{TOP}data/{name}": recording(number) for number, name in enumerate(release.recordings())}
    return files | {f"{TOP}data/{METADATA}": genders(), f"{TOP}README.md": b"read me"}


def zipped(files: Archive) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return file.getvalue()
