"""AudioMNIST's file of facts about its speakers."""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from audio_lrp.data.folds import Gender
from audio_lrp.errors import UserError

METADATA: Final = "audioMNIST_meta.txt"
OLDEST: Final = 120


def read_genders(path: Path) -> dict[str, Gender]:
    """The gender of each speaker that the metadata file calls male or female; empty where there is no such file.

    Raises:
        UserError: the file is not a JSON object.
    """
    if not path.exists():
        return {}
    metadata = _read(path)
    if isinstance(metadata, str):
        raise UserError(f"{path} {metadata}")
    genders: dict[str, Gender] = {}
    for speaker, facts in metadata.items():
        match facts.get("gender") if isinstance(facts, dict) else None:
            case "male" | "female" as gender:
                genders[speaker] = gender
    return genders


def _read(path: Path) -> dict[str, Any] | str:
    """The facts by speaker; what is wrong with the file and how to fix it, where it cannot be used."""
    try:
        metadata = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        return f"is not readable JSON ({error}); restore it from the corpus, or remove it to go without genders"
    if not isinstance(metadata, dict):
        return 'is not a JSON object of speakers, such as {"01": {"gender": "male"}}; restore it'
    return metadata


def metadata_faults(path: Path, speakers: Iterable[str]) -> Iterator[tuple[str, str]]:
    """What is wrong with a metadata file, as pairs of place and detail.

    Args:
        path: the file.
        speakers: the speakers that there are recordings of.
    """
    if not path.exists():
        yield path.name, "is missing: no speaker's gender is known"
        return
    metadata = _read(path)
    if isinstance(metadata, str):
        yield path.name, metadata
        return
    spoken = set(speakers)
    for speaker in sorted(spoken | metadata.keys()):
        facts = metadata.get(speaker)
        if not isinstance(facts, dict):
            yield f"speaker {speaker}", "has recordings but no metadata" if facts is None else "has no facts"
            continue
        if speaker not in spoken:
            yield f"speaker {speaker}", "has metadata but no recordings"
        if facts.get("gender") not in ("male", "female"):
            yield f"speaker {speaker}", f"gender is {facts.get('gender')!r}, neither male nor female"
        age = str(facts.get("age", ""))
        if age.isdecimal() and not 0 < int(age) < OLDEST:
            yield f"speaker {speaker}", f"age is {age}"
    for key in ("accent", "origin", "recordingroom"):
        yield from _spellings(key, metadata)


def _spellings(key: str, metadata: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Values that differ in nothing but capitals."""
    values = {str(facts[key]) for facts in metadata.values() if isinstance(facts, dict) and key in facts}
    alike: dict[str, list[str]] = defaultdict(list)
    for value in sorted(values):
        alike[value.casefold()].append(value)
    for variants in alike.values():
        if len(variants) > 1:
            yield key, f"is spelled in {len(variants)} ways: {', '.join(variants)}"
