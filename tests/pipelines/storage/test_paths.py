"""Paths as people write them: file:// URLs with percent signs, names of 255 bytes, and errors that say what helps."""

import errno
import os

import pytest

from pipelines.runs.run_folder import local_path
from pipelines.storage.local_files import MAX_NAME_BYTES, local_errors, short_name
from pipelines.storage.uris import absolute, join, name_of, path_of, read_bytes, temporary_path, write_atomic
from sr3core.errors import StorageError


def test_a_file_url_is_decoded_and_names_this_machine(tmp_path):
    file = tmp_path / "my photos" / "a%b.txt"
    file.parent.mkdir()
    file.write_text("x")
    assert read_bytes(file.as_uri()) == b"x"
    assert absolute(file.as_uri()) == str(file)
    assert name_of(file.as_uri()) == "a%b.txt"
    assert join(file.parent.as_uri(), "b") == str(file.parent / "b")
    assert local_path(file.parent.as_uri()) == file.parent
    assert path_of(f"file://localhost{tmp_path}") == str(tmp_path)
    assert path_of("a%20b") == "a%20b", "a plain path is no URL"
    with pytest.raises(StorageError, match=r"'server' would be another machine; write file:///FOLDER/FILE"):
        path_of("file://server/share/a.png")


@pytest.mark.parametrize("length", [242, 243, 255])
@pytest.mark.parametrize("letter", ["a", "é"])
def test_a_file_may_have_the_longest_name_that_the_disk_takes(tmp_path, length, letter):
    name = letter * (length // len(letter.encode()))
    write_atomic(str(tmp_path / name), b"x")
    assert [path.name for path in tmp_path.iterdir()] == [name]
    temporary = os.path.basename(temporary_path(str(tmp_path / name)))
    assert len(temporary.encode()) <= MAX_NAME_BYTES


def test_names_that_are_shortened_differ_where_the_whole_names_do():
    one, other = ("a" * 250 + letter for letter in "bc")
    assert short_name(one, 4) == one, "it fits as it is"
    assert short_name(one, 17) != short_name(other, 17)
    assert len(short_name(one, 17)) + 17 <= MAX_NAME_BYTES


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "free space there"),
        (errno.EROFS, "mount the disk writable"),
        (errno.EACCES, "change its permissions"),
        (errno.ENAMETOOLONG, "choose a shorter name"),
    ],
)
def test_an_error_of_the_disk_says_what_helps(number, remedy):
    with pytest.raises(StorageError, match=rf"^/x: .*; .*{remedy}"), local_errors("/x"):
        raise OSError(number, os.strerror(number))
