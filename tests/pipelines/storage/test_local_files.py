"""Folders with everything that a folder can hold, and reads that fail."""

import os
import socket
from pathlib import Path

import pytest

from pipelines.storage.local_files import Entry, LocalFile, walk
from pipelines.storage.uris import list_files, open_seekable
from sr3core.errors import MissingError, StorageError


def test_every_entry_is_listed_and_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "file").write_bytes(b"123")
    (tmp_path / "a link").symlink_to("b")
    (tmp_path / "b" / "up").symlink_to("..")
    (tmp_path / "to file").symlink_to("b/file")
    (tmp_path / "nowhere").symlink_to("none")
    (tmp_path / "below a file").symlink_to("b/file/x")
    (tmp_path / "itself").symlink_to("itself")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "to pipe").symlink_to("pipe")
    monkeypatch.chdir(tmp_path)  # a socket's path may have 107 bytes
    with socket.socket(socket.AF_UNIX) as end:
        end.bind("socket")
        found = list(walk(str(tmp_path)))
    special = {"pipe", "to pipe", "socket"}
    nowhere = {"nowhere", "below a file", "itself"}
    assert sorted(found) == sorted(
        [
            *(Entry(name, kind="special") for name in special),
            *(Entry(name) for name in nowhere),
            *(Entry(name, 3) for name in ("a link/file", "to file")),
            *(Entry(name, kind="folder_again") for name in ("a link/up/", "b/")),
        ]
    )
    assert {name for name, _ in list_files(str(tmp_path))} == {*nowhere, "a link/file", "to file"}


def test_what_cannot_be_read_is_an_error_of_the_storage_not_of_the_file(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="none: No such file"):
        open_seekable(str(tmp_path / "none"))
    with pytest.raises(StorageError, match="Is a directory") as caught:
        LocalFile(str(tmp_path))
    assert not isinstance(caught.value, MissingError)
    (tmp_path / "file").write_bytes(b"data")
    for read in (lambda file: file.read(), lambda file: file.read(2), lambda file: file.readinto(bytearray(2))):
        with open_seekable(str(tmp_path / "file")) as file:
            os.close(file.fileno())  # as when a network disk goes away
            with pytest.raises(StorageError, match="file: Bad file descriptor"):
                read(file)
            os.open(os.devnull, os.O_RDONLY)  # takes the number, so that closing the file closes that
