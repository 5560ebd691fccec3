"""A folder that the drive works in: what a call changed there, and how it was before."""

import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

Stamps = dict[str, tuple[int, int, int]]
"""Path -> kind, size and time of change; of folders and links the kind alone."""


class WatchedFolder:
    """Everything below a folder, as it was when this was made."""

    def __init__(self, folder: Path) -> None:
        self._folder, self.good = folder, folder / "good"
        self.unwatched = {"good", "copies"}
        """Names, relative to the folder, of what is not looked at: the originals, working copies of buckets."""
        names = os.listdir(folder)
        self.good.mkdir()
        for name in names:
            _copy(folder / name, self.good / name)
        self._first = self._stamps()

    def changes(self) -> list[str]:
        """What was made, changed or deleted, by absolute paths."""
        now = self._stamps()
        names = (name for name in {*now, *self._first} if now.get(name) != self._first.get(name))
        return sorted(str(self._folder / name) for name in names)

    def restore(self) -> None:
        """Make it as it was."""
        changed = [Path(path) for path in self.changes()]
        for path in reversed(changed):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif os.path.lexists(path):
                path.unlink()
        for path in changed:
            good = self.good / path.relative_to(self._folder)
            if os.path.lexists(good) and not os.path.lexists(path):
                _copy(good, path)

    def _stamps(self) -> Stamps:
        return dict(self._walk(""))

    def _walk(self, prefix: str) -> Iterator[tuple[str, tuple[int, int, int]]]:
        with os.scandir(self._folder / prefix) as entries:
            for entry in entries:
                name, status = prefix + entry.name, entry.stat(follow_symlinks=False)
                if name in self.unwatched:
                    continue
                kind, is_file = stat.S_IFMT(status.st_mode), stat.S_ISREG(status.st_mode)
                yield name, (kind, status.st_size if is_file else 0, status.st_mtime_ns if is_file else 0)
                if stat.S_ISDIR(status.st_mode):
                    yield from self._walk(f"{name}/")


def _copy(source: Path, target: Path) -> None:
    """Copy whatever it is: a folder with links and pipes too."""
    mode = source.lstat().st_mode
    if stat.S_ISLNK(mode):
        target.symlink_to(os.readlink(source))
    elif stat.S_ISFIFO(mode):
        os.mkfifo(target)
    elif stat.S_ISDIR(mode):
        target.mkdir(exist_ok=True)
        for name in os.listdir(source):
            _copy(source / name, target / name)
    else:
        shutil.copy2(source, target)
