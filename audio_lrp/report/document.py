"""Find out whether a path is a run, a checkpoint or a study, make its page, write it."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from audio_lrp.constants import REPORT_FILENAME
from audio_lrp.errors import UserError
from audio_lrp.html.rendering import html
from audio_lrp.report.run_folder import is_run, read_checkpoint_alone, read_run
from audio_lrp.report.run_page import run_page
from audio_lrp.report.study_page import is_study, study_page
from audio_lrp.utils.files import replacing
from audio_lrp.utils.nearest import nearest_path


@dataclass(frozen=True)
class Report:
    """What `report` has written.

    Attributes:
        path: the file.
        problems: what could not be read and is missing in it, a sentence each.
    """

    path: Path
    problems: Sequence[str]


def report(folder: Path, output: Path | None = None, *, plugins: Collection[str] = ()) -> Report:
    """Write one self-contained HTML file about a run or a study.

    Args:
        folder: of a run, ``runs/NAME/TIME``, or of a study, ``study-NAME``; or a checkpoint alone, which tells of its
            configuration and explains test clips.
        output: the file; None: ``report.html`` in the folder, or beside the checkpoint. It appears when it is
            complete.
        plugins: packages whose classes the run may name, beside audio-lrp's own and installed plugins.

    Returns:
        The file, and what is missing in it.

    Raises:
        UserError: the folder is missing or none of a run or a study, the checkpoint or a file of a study is damaged,
            or the file cannot be written.
    """
    if not folder.exists():
        raise UserError(f"there is no folder {folder}: {nearest_path(folder) or 'name the folder of a run or a study'}")
    if folder.is_file():
        page = run_page(read_checkpoint_alone(folder.resolve()), plugins)
    elif is_run(folder):
        page = run_page(read_run(folder.resolve()), plugins)
    elif is_study(folder):
        page = study_page(folder.resolve(), plugins)
    else:
        raise UserError(
            f"{folder} is not the folder of a run or a study, it holds neither config.yaml nor study.json: "
            "name one like runs/NAME/TIME or study-NAME"
        )
    path = (folder.parent if folder.is_file() else folder) / REPORT_FILENAME if output is None else output
    with replacing(path, "choose another place with --output") as temporary:
        temporary.write_text(html(page), encoding="utf-8", errors="replace")
    return Report(path, page.problems)
