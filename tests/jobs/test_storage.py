"""The storage of a queue: what is wrong with it in one sentence, and a journal that was cut off."""

from pathlib import Path

import pytest
from numbered_work import NumberedWork

from audio_lrp.errors import UserError
from audio_lrp.jobs import open_study
from audio_lrp.jobs.worker import do_jobs


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("postgresql://me:secret@127.0.0.1:1/x", r"^(?!.*secret).*127.0.0.1:1/x cannot be used \(.*refused"),
        ("mysql://me:secret@127.0.0.1:1/x", r"^(?!.*secret).*127.0.0.1:1/x cannot be used \(.*refused"),
        ("sqlite:////no/such/folder/study.db", "cannot be used .*unable to open database file"),
        ("oracle://me@host/x", "no driver for it is installed"),
        ("nonsense://x", "no driver for it is installed"),
        ("study.db", "no URL of a database: sqlite:///FILE, postgresql"),
    ],
)
def test_unusable(url: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        open_study(url, "name", {})


def test_another_content_of_the_same_name(url: str) -> None:
    open_study(url, "name", {"method": "grid", "seed": 1})
    open_study(url, "name", {"method": "grid", "seed": 1})
    with pytest.raises(UserError, match=r"another content \(method differs\).*--name"):
        open_study(url, "name", {"method": "random", "seed": 1})


@pytest.mark.parametrize("left", [b'{"op_code": 5, "wor', b""])
def test_half_a_line_at_the_end_of_a_journal_is_removed(url: str, left: bytes) -> None:
    """What a full disk or a power cut leaves."""
    work = NumberedWork(url, count=2)
    do_jobs(work, work.queue(), "here")
    with Path(url.partition("://")[2]).open("ab") as journal:
        journal.write(left)
    again = NumberedWork(url, count=3)
    do_jobs(again, again.queue(), "here")
    assert again.done == ["2"]
    assert len(again.queue().attempts()) == 3
