"""Finding photos in files, folders and patterns, and naming their outputs."""

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.images.file_names import IgnoreReason
from pipelines.sampling.photo_finder import FoundPhotos, find_photos, name_outputs
from sr3core.errors import ConfigError, DataError
from tests.pipelines.prepare.source_trees import Tree, as_folder, trees


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.jpg", "b.PNG", "notes.txt", "deep/c.webp", "deep/er/d.tif", ".hidden.png", "up/a.png"):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return tmp_path / "in"


def names(*inputs: object, **options: object) -> list[str]:
    return [photo.name for photo in find_photos([str(text) for text in inputs], **options).photos]  # type: ignore[arg-type]


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


@given(trees(), st.booleans())
@settings(max_examples=60)
def test_every_file_of_a_folder_is_a_photo_or_ignored_by_name(tree: Tree, recursive: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "in"
        names = as_folder(root, tree)
        if not recursive:
            names = sorted({name if "/" not in name else f"{name.partition('/')[0]}/" for name in names})
        try:
            found = find_photos([str(root)], recursive=recursive)
        except DataError as error:
            assert "no image found" in str(error)  # noqa: PT017
            return
        assert sorted([*(photo.name for photo in found.photos), *ignored(found, root)]) == sorted(names)
        again = find_photos([str(root), str(root / "**" / "*"), f"{root}/"], recursive=recursive)
        assert {photo.uri for photo in found.photos} <= {photo.uri for photo in again.photos}


def ignored(found: FoundPhotos, root: Path) -> dict[str, IgnoreReason]:
    """By their names relative to the folder that was named."""
    return {name.removeprefix(f"{root}/"): reason for name, reason in found.ignored}


def test_what_a_pattern_matches_is_a_photo_or_ignored_by_name(folder: Path) -> None:
    os.mkfifo(folder / "pipe.png")
    (folder / "gone.png").symlink_to("nowhere.png")
    found = find_photos([str(folder / "*")], leave_out=str(folder / "out"))
    assert [photo.name for photo in found.photos] == ["a.jpg", "b.PNG", "gone.png"], "a link to nothing fails by name"
    assert ignored(found, folder) == {
        "deep/": IgnoreReason.SUBFOLDER,
        "up/": IgnoreReason.SUBFOLDER,
        "notes.txt": IgnoreReason.NOT_AN_IMAGE_NAME,
        "pipe.png": IgnoreReason.NOT_A_REGULAR_FILE,
    }
    named = find_photos([str(folder), str(folder / "notes.txt")])
    assert "notes.txt" in [photo.name for photo in named.photos]
    assert "notes.txt" not in ignored(named, folder), "what is named itself is taken, whatever its name"
    with pytest.raises(DataError, match="neither a file nor a folder, but a pipe"):
        names(folder / "pipe.png")


def test_what_is_not_there_is_named(folder: Path) -> None:
    for text in ("nowhere", "*.bmp", "nowhere/**/*.png"):
        with pytest.raises(DataError, match="no such file or folder"):
            names(folder / text)
    (folder / "empty").mkdir()
    with pytest.raises(DataError, match="no image found; name images or a folder of them, or with subfolders"):
        names(folder / "empty")


def test_outputs_keep_names_and_never_replace_a_photo(folder: Path) -> None:
    photos = find_photos([str(folder)], recursive=True, leave_out=str(folder / "up")).photos
    assert list(name_outputs(photos, "/out", "png")) == ["a.png", "b.png", "deep/c.png", "deep/er/d.png"]
    for name in ("a.bmp", "b.gif", "up/b.jpg", "up/c.png", "c.jpg"):
        (folder / name).write_bytes(b"x")
    with pytest.raises(
        DataError, match=r"a.bmp and .*a.jpg would both become a.jpg; .* and 2 more\. Rename one of each"
    ):
        name_outputs(find_photos([str(folder), str(folder / "up")]).photos, "/out", "jpg")
    with pytest.raises(ConfigError, match="is one of the input images"):
        name_outputs(find_photos([str(folder / "a.jpg")]).photos, str(folder), "jpg")
