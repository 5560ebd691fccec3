"""Finding photos in files, folders and patterns, and naming their outputs."""

from pathlib import Path

import pytest

from pipelines.sampling.photo_finder import find_photos, name_outputs
from sr3core.errors import ConfigError, DataError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.jpg", "b.PNG", "notes.txt", "deep/c.webp", "deep/er/d.tif", ".hidden.png", "up/a.png"):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return tmp_path / "in"


def names(*inputs: object, **options: object) -> list[str]:
    return [photo.name for photo in find_photos([str(text) for text in inputs], **options)]  # type: ignore[arg-type]


def test_folders_files_and_patterns(folder: Path) -> None:
    assert names(folder) == ["a.jpg", "b.PNG"]
    assert names(folder, recursive=True) == ["a.jpg", "b.PNG", "deep/c.webp", "deep/er/d.tif", "up/a.png"]
    without = ["a.jpg", "b.PNG", "deep/c.webp", "deep/er/d.tif"]
    assert names(folder, recursive=True, leave_out=str(folder / "up")) == without
    assert names(folder / "up", recursive=True, leave_out=str(folder / "up")) == ["a.png"]
    assert names(folder / "deep" / "c.webp", folder / "notes.txt") == ["c.webp", "notes.txt"]
    assert names(folder / "*.jpg") == ["a.jpg"]
    assert names(folder / "deep" / "**" / "*.tif") == ["er/d.tif"]
    assert names(folder, folder / "a.jpg") == ["a.jpg", "b.PNG"], "each once"


def test_a_file_whose_name_looks_like_a_pattern_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "scan[1].png").write_bytes(b"x")
    (tmp_path / "scan1.png").write_bytes(b"x")
    assert names(tmp_path / "scan[1].png") == ["scan[1].png"]


def test_brackets_in_the_name_of_a_folder_are_no_pattern(tmp_path: Path) -> None:
    for name in ("scans [2019]/a.png", "scans [2019]/b[1]/c.png", "scans 2/d.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    assert names(tmp_path / "scans [2019]" / "*.png") == ["a.png"]
    assert names(tmp_path / "scans [2019]" / "**" / "*.png") == ["a.png", "b[1]/c.png"]
    assert names(tmp_path / "scans [2019]" / "b[1]" / "[ac].png") == ["c.png"]
    assert names(tmp_path / "scans [0-9]" / "*.png") == ["scans 2/d.png"], "no folder has that name"


def test_what_is_not_there_is_named(folder: Path) -> None:
    for text in ("nowhere", "*.bmp"):
        with pytest.raises(DataError, match="no such file or folder"):
            names(folder / text)
    (folder / "empty").mkdir()
    with pytest.raises(DataError, match="no image found; a quoted pattern"):
        names(folder / "empty")


def test_outputs_keep_names_and_never_replace_a_photo(folder: Path) -> None:
    photos = find_photos([str(folder)], recursive=True, leave_out=str(folder / "up"))
    assert list(name_outputs(photos, "/out", "png")) == ["a.png", "b.png", "deep/c.png", "deep/er/d.png"]
    for name in ("a.bmp", "b.gif", "up/b.jpg", "up/c.png", "c.jpg"):
        (folder / name).write_bytes(b"x")
    with pytest.raises(
        DataError, match=r"a.bmp and .*a.jpg would both become a.jpg; .* and 2 more\. Rename one of each"
    ):
        name_outputs(find_photos([str(folder), str(folder / "up")]), "/out", "jpg")
    with pytest.raises(ConfigError, match="is one of the input images"):
        name_outputs(find_photos([str(folder / "a.jpg")]), str(folder), "jpg")
