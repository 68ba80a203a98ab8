"""The storage of a queue: a journal file in its folder, or a database that its URL names."""

import os
import random
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, Final

import optuna
import sqlalchemy
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock

from audio_lrp.errors import NO_SPACE, UserError, not_writable

_JOURNAL: Final = "journal"
_MOST_COLLISIONS: Final = 10
_DRIVERS: Final = {"postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg", "mysql": "mysql+pymysql"}
_CONTENT: Final = "content"


def default_storage(folder: Path) -> str:
    """The URL of the journal file in a folder, which may also be shared over NFS."""
    return f"{_JOURNAL}://{folder.absolute() / 'queue.log'}"


def open_study(
    url: str, name: str, content: Mapping[str, Any], *, fix: str = "start another one with --name", **settings: Any
) -> optuna.Study:
    """Create an Optuna study, or open the one of this name.

    Args:
        url: the storage: `default_storage`, or a database in SQLAlchemy's form, e.g.
            ``postgresql://user:password@host/database``.
        name: the study's name in the storage.
        content: what the study is about, which must not change while it lasts; as JSON has it.
        fix: what the user can do where it has changed.
        settings: further arguments of :func:`optuna.create_study`.

    Raises:
        UserError: the storage cannot be reached, or holds something else of this name.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with storage_errors(url):
        study = optuna.create_study(storage=_storage(url), study_name=name, load_if_exists=True, **settings)
        known = study.user_attrs.get(_CONTENT)
        if known is None:
            study.set_user_attr(_CONTENT, dict(content))
        elif known != dict(content):
            changed = sorted(key for key in {*known, *content} if known.get(key) != content.get(key))
            raise UserError(f"{name} was started with another content ({', '.join(changed)} differs): {fix}")
    return study


@contextmanager
def storage_errors(url: str) -> Iterator[None]:
    """Say in one sentence what is wrong with the storage.

    Raises:
        UserError: the block could not use it.
    """
    scheme, _, rest = url.partition("://")
    try:
        yield
    except OSError as error:
        if error.errno in NO_SPACE and error.filename is None:
            raise not_writable(rest, error, "choose another place with --storage") from error
        raise
    except (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError, ImportError) as error:
        place = f"{scheme}://{rest.rpartition('@')[2]}"  # without the password
        if isinstance(error, ImportError | sqlalchemy.exc.NoSuchModuleError):
            reason = "no driver for it is installed: pip install 'audio-lrp[databases]' brings PostgreSQL's and MySQL's"
        else:
            reason = next(line for line in str(error.__cause__ or error).splitlines() if line.strip())
        raise UserError(f"the storage {place} cannot be used ({reason}): look at --storage") from error


def _storage(url: str) -> BaseStorage:
    driver, separator, rest = url.partition("://")
    if not separator:
        raise UserError(
            f"the storage {url!r} is no URL of a database: sqlite:///FILE, postgresql://USER:PASSWORD@HOST/DATABASE "
            "or mysql://USER:PASSWORD@HOST/DATABASE"
        )
    if driver == _JOURNAL:
        return JournalStorage(JournalFileBackend(rest, _Lock(rest)))
    # Several processes write into one SQLite file: each waits for its turn instead of failing.
    settings = {"connect_args": {"timeout": 60}} if driver == "sqlite" else {"pool_pre_ping": True}
    for attempt in count(1):
        try:
            return RDBStorage(f"{_DRIVERS.get(driver, driver)}://{rest}", engine_kwargs=settings)
        except (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
            # Another machine starts at this moment, and makes the tables.
            collision = isinstance(error, sqlalchemy.exc.IntegrityError) or "already exists" in str(error)
            if not collision or attempt == _MOST_COLLISIONS:
                raise
            time.sleep(random.uniform(0.2, 1.0))
    raise AssertionError("unreachable")


class _Lock(JournalFileSymlinkLock):
    """Optuna's lock of a journal file; who holds it finds whole lines, whatever a full disk or a power cut has left.

    Optuna overlooks half a line at the end, but could read nothing once another line follows.
    """

    def acquire(self) -> bool:
        """Take the lock, and remove half a line at the end of the file."""
        super().acquire()
        with Path(self._lock_target_file).open("r+b") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 1))
            if size and file.read() != b"\n":
                file.seek(0)
                file.truncate(file.read().rfind(b"\n") + 1)
        return True
