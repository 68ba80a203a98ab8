"""Files whose names do not tell what is spoken in them."""

from pathlib import Path

from audio_lrp.errors import UserError


class MisnamedFileError(UserError):
    """A recording's labels cannot be read off its name.

    Args:
        path: the file.
        problem: what is wrong with its name.
        pattern: how files in its folder must be called.

    Attributes:
        path: the file.
        problem: what is wrong with its name.
    """

    def __init__(self, path: Path, problem: str, pattern: str) -> None:
        super().__init__(f"{path}: {problem}; files in {path.parent} must be called {pattern}: rename or remove it")
        self.path = path
        self.problem = problem
