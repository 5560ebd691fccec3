"""Generated sources: trees of files, links, pipes and holes, as folders, tars, zips, parquet files and mixtures."""

import io
import os
import tarfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st

from tests.pipelines.prepare.source_files import picture

FOLDERS = st.sampled_from(
    (
        *("", "a", "A", "cat", "dog", "deep/er", ".git", ".ipynb_checkpoints", "__MACOSX", "@eaDir", ".thumbnails"),
        *(".Trash-1000/files", "$RECYCLE.BIN", "lost+found", "images1024x1024/00000", "thumbnails128x128/00000"),
        *("in-the-wild-images/00000", "n01440764", "train/n01443537", "celeba_hq/data64x64", "val"),
    )
)
FILES = st.sampled_from(
    (
        *("x.png", "X.PNG", "y.jpg", "y.cls", "._x.png", "..png", "what?.png", "a b#c.webp", "é\n.png", "Thumbs.db"),
        *("k.hr.png", "k.lr.png", "k.json", "notes.txt", "no ending", "dataset.json", "old.tar.gz", "inner.7z"),
        *("ILSVRC2012_val_00000001.JPEG", "ILSVRC2012_validation_ground_truth.txt", "val.txt"),
    )
)
NAMES = st.sets(st.tuples(FOLDERS, FILES).map(lambda parts: "/".join(part for part in parts if part)), max_size=12)
BYTES = st.sampled_from((picture(1), picture(2), b"", b"3", b"cat", b"<html>", b"490\n"))


@dataclass(frozen=True)
class Link:
    """A link to another name of the tree, or to a place that may not exist."""

    to: str
    is_hard: bool


@dataclass(frozen=True)
class Pipe:
    """A named pipe."""


@dataclass(frozen=True)
class Sparse:
    """A file of 1,000 bytes of nothing, which are not stored, and then of data."""

    data: bytes


Content = bytes | Link | Pipe | Sparse
Tree = Mapping[str, Content]
LINKS = st.builds(Link, st.sampled_from(("x.png", "a/x.png", "y.jpg", ".", "nowhere.png", "k.json")), st.booleans())
CONTENTS = st.one_of(BYTES, BYTES, LINKS, st.builds(Pipe), st.builds(Sparse, BYTES))


def trees(contents: st.SearchStrategy[Content] = CONTENTS) -> st.SearchStrategy[Tree]:
    """Up to twelve names, each with its content."""
    return NAMES.flatmap(lambda names: st.fixed_dictionaries(dict.fromkeys(sorted(names), contents)))


def plain(tree: Tree) -> dict[str, bytes]:
    """What of a tree can be in a bucket or a zip: its files."""
    return {name: content for name, content in tree.items() if isinstance(content, bytes)}


def as_folder(root: Path, tree: Tree) -> list[str]:
    """Write a tree as a folder; returns the names that a listing must account for, a folder's with a slash."""
    root.mkdir(parents=True, exist_ok=True)
    for name, content in sorted(tree.items(), key=lambda entry: isinstance(entry[1], Link)):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif isinstance(content, Pipe):
            os.mkfifo(path)
        elif isinstance(content, Sparse):
            with path.open("wb") as file:
                file.seek(1000)
                file.write(content.data)
        elif content.is_hard and (root / content.to).is_file():
            os.link(root / content.to, path)
        else:
            path.symlink_to(os.path.relpath(root / content.to, path.parent))
    return [f"{name}/" if (root / name).is_dir() else name for name in tree]


def as_tar(tree: Tree) -> bytes:
    """A tree as a tar, links before what they point to or after it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in tree.items():
            member = tarfile.TarInfo(name)
            data = content if isinstance(content, bytes) else getattr(content, "data", b"")
            member.size = len(data)
            if isinstance(content, Pipe):
                member.type = tarfile.FIFOTYPE
            elif isinstance(content, Link):
                member.type = tarfile.LNKTYPE if content.is_hard else tarfile.SYMTYPE
                member.linkname = content.to if content.is_hard else os.path.relpath(content.to, Path(name).parent)
            elif isinstance(content, Sparse):
                member.pax_headers = {
                    **{"GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.numblocks": "1"},
                    **{"GNU.sparse.map": f"1000,{len(data)}", "GNU.sparse.size": str(1000 + len(data))},
                }
            archive.addfile(member, io.BytesIO(data) if data else None)
    return buffer.getvalue()


def as_zip(tree: Tree) -> bytes:
    """The files of a tree as a zip."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in plain(tree).items():
            archive.writestr(name, data)
    return buffer.getvalue()


ROWS = st.lists(st.tuples(st.one_of(BYTES, st.none()), st.sampled_from(("cat", "3", "", None))), max_size=5)
Row = tuple[bytes | None, str | None]


def as_parquet(rows: list[Row], group: int = 2) -> bytes:
    """A table of images and labels."""
    buffer = io.BytesIO()
    images = pa.array([data for data, _ in rows], pa.binary())
    labels = pa.array([label for _, label in rows], pa.string())
    pq.write_table(pa.table({"image": images, "label": labels}), buffer, row_group_size=group)
    return buffer.getvalue()


def row_names(path: str, rows: list[Row], group: int = 2) -> list[str]:
    """How rows are named."""
    return [f"{path}#{number // group:05d}-{number % group:06d}" for number in range(len(rows))]
