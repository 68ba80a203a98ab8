"""AudioMNIST's file of facts about its speakers."""

import json
from pathlib import Path
from typing import Final

from audio_lrp.data.folds import Gender
from audio_lrp.errors import UserError

METADATA: Final = "audioMNIST_meta.txt"


def read_genders(path: Path) -> dict[str, Gender]:
    """The gender of each speaker that the metadata file calls male or female; empty where there is no such file.

    Raises:
        UserError: the file is not a JSON object.
    """
    if not path.exists():
        return {}
    try:
        metadata = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"{path} is not readable JSON ({error}); restore it from the corpus, or remove it to go without genders"
        ) from error
    if not isinstance(metadata, dict):
        raise UserError(f'{path} is not a JSON object of speakers, such as {{"01": {{"gender": "male"}}}}; restore it')
    genders: dict[str, Gender] = {}
    for speaker, facts in metadata.items():
        match facts.get("gender") if isinstance(facts, dict) else None:
            case "male" | "female" as gender:
                genders[speaker] = gender
    return genders
