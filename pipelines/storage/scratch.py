"""Local files on their way to a bucket, and what killed processes left of theirs."""

import atexit
import fcntl
import os
import secrets
import shutil
import tempfile
from functools import cache
from pathlib import Path

from pipelines.storage.local_files import local_errors


@cache
def scratch_folder() -> str:
    """A folder of this process alone, for as long as it lives. Folders of processes that were killed are deleted.

    A lock says whether a process lives: process ids would not, where containers share the disk.

    Raises:
        StorageError: the temporary folder cannot be written to.
    """
    root = Path(tempfile.gettempdir(), f"sr3-{os.getuid()}")
    with local_errors(str(root)):
        root.mkdir(mode=0o700, exist_ok=True)
        _sweep(root)
        folder = root / secrets.token_hex(8)
        lock = folder.with_suffix(".lock").open("wb")  # held until this process ends, however it ends
        fcntl.flock(lock, fcntl.LOCK_EX)
        folder.mkdir()
    atexit.register(_leave, folder, lock)
    return str(folder)


def _leave(folder: Path, lock: object) -> None:
    """At the end of the process. Takes the lock, so that it is held until then."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.with_suffix(".lock").unlink(missing_ok=True)


def _sweep(root: Path) -> None:
    for path in root.glob("*.lock"):
        try:
            with path.open("rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path.with_suffix(""), ignore_errors=True)
                path.unlink(missing_ok=True)
        except OSError:  # its process lives, or another one is deleting it
            continue
