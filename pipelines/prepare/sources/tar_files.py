"""Tar files, also with tars inside: they are listed once, then every image is read on its own by its place."""

import io
import posixpath
import tarfile
from collections.abc import Mapping
from typing import IO

from pipelines.images.file_names import IgnoreReason, is_hidden, why_ignored
from pipelines.images.rejects import DecodeError, RejectReason
from pipelines.prepare.sources.class_labels import read_label
from pipelines.prepare.sources.imagenet_classes import CLASS_INDEX
from pipelines.prepare.sources.items import Ignored, Listing, SourceItem, judged
from pipelines.prepare.sources.layouts import synset_in
from pipelines.storage.range_file import RangeFile
from pipelines.storage.uris import open_seekable

_COMPRESSIONS = {b"\x1f\x8b": "gzip", b"\xfd7zXZ\0": "xz", b"BZh": "bzip2", b"\x28\xb5\x2f\xfd": "zstd"}
_MAX_LABEL_BYTES = 1000
_MAX_LINKS = 40
_LOOK_BEHIND_BYTES = 1 << 16


def list_tar(file: IO[bytes], path: str, with_labels: bool = True) -> Listing:
    """List a WebDataset shard, any tar of images, or ILSVRC's tar with a tar for each synset.

    Args:
        file: the tar.
        path: the tar, relative to the source; "" if it is the source.
        with_labels: whether to read the members that end in .cls.

    Raises:
        tarfile.TarError, ValueError: it is no tar.
    """
    return _Tar(file, path, with_labels).list()


def read_sparse(path: str, item: SourceItem) -> bytes:
    """Read a sparse member, whose holes are not stored.

    Raises:
        DecodeError: the member is damaged.
    """
    with open_seekable(path) as file:
        file.seek(item.offset)
        try:
            with tarfile.open(fileobj=file, mode="r|") as archive:
                member = archive.next()
                content = archive.extractfile(member) if member else None
                return content.read() if content else b""
        except tarfile.TarError as error:
            raise DecodeError(RejectReason.CORRUPT, f"the sparse tar member cannot be read: {error}") from error


class _Tar:
    """A tar that is being listed.

    Args:
        file: the tar, from its own byte 0.
        path: the outermost file, relative to the source.
        with_labels: whether to read the members that end in .cls.
        base: where the tar begins in that file; offsets of items are relative to that file.
        inside: the tar's name in that file, with a trailing slash.
    """

    def __init__(self, file: IO[bytes], path: str, with_labels: bool, base: int = 0, inside: str = "") -> None:
        self._file, self._path, self._with_labels, self._base, self._inside = file, path, with_labels, base, inside
        self._prefix = f"{path}/{inside}" if path else inside
        self._labels: dict[str, object] = {}
        self._images: list[tarfile.TarInfo] = []
        self._links: list[tarfile.TarInfo] = []
        self._members: list[tarfile.TarInfo] = []

    def list(self) -> Listing:
        """Yield one entry for every member that is no folder, and one for each place where the tar is damaged."""
        start = self._read_at(0, 6)
        if found := next((name for magic, name in _COMPRESSIONS.items() if start.startswith(magic)), None):
            raise ValueError(f"it is compressed with {found}, whatever its name: decompress it first")
        self._file.seek(0)
        with tarfile.open(fileobj=self._file, mode="r:") as archive:
            try:
                for member in archive:
                    yield from self._member(member)
            except (tarfile.ReadError, ValueError) as error:
                yield self._damage("(rest)", f"the tar is damaged from here on: {error}")
            else:
                yield from self._end(archive.offset)
            for member in self._images:
                yield self._image(member, member)
            if self._links:
                members = {posixpath.normpath(member.name): member for member in self._members}
                for link in self._links:
                    yield self._linked(link, members)

    def _member(self, member: tarfile.TarInfo) -> Listing:
        """What a member is; images and links wait until all labels and members are known."""
        if member.isdir():
            return
        self._members.append(member)
        name = self._prefix + member.name
        key, extension = _split_name(member.name)
        if not member.isreg():
            is_link = member.issym() or member.islnk()
            if is_link and why_ignored(name) is None:
                self._links.append(member)
            else:
                yield Ignored(name, why_ignored(name) if is_link else IgnoreReason.NOT_A_REGULAR_FILE)  # type: ignore
        elif extension == "tar" and not is_hidden(name):
            yield from self._inner(member)
        elif extension.startswith(("lr.", "lr_blur")) and why_ignored(name) is None:
            yield Ignored(name, IgnoreReason.NOT_IN_LAYOUT)
        elif reason := why_ignored(name):
            is_label = extension == "cls" and self._with_labels and reason is IgnoreReason.NOT_AN_IMAGE_NAME
            if is_label and member.size <= _MAX_LABEL_BYTES:
                self._labels[key] = self._read_at(member.offset_data, member.size)
                reason = IgnoreReason.CLASS_LABEL
            yield Ignored(name, reason, self._item(name, member))
        else:
            self._images.append(member)

    def _inner(self, member: tarfile.TarInfo) -> Listing:
        """List a tar in this one; if it is damaged, only it is lost."""
        data = RangeFile(lambda offset, size: self._read_at(member.offset_data + offset, size), member.size)
        inner = _Tar(
            io.BufferedReader(data),
            self._path,
            self._with_labels,
            self._base + member.offset_data,
            f"{self._inside}{member.name}/",
        )
        try:
            yield from inner.list()
        except (tarfile.TarError, ValueError) as error:
            yield self._damage(member.name, f"not a readable tar file: {error}")

    def _end(self, offset: int) -> Listing:
        """What is wrong behind the last member, if anything; tarfile itself stops there silently."""
        behind = self._read_at(offset, _LOOK_BEHIND_BYTES)
        if len(behind) < tarfile.BLOCKSIZE or behind[: tarfile.BLOCKSIZE].strip(b"\0"):
            yield self._damage("(rest)", "the tar has no end mark: it is truncated")
        elif behind.strip(b"\0"):
            yield self._damage(
                "(rest)", "more follows the tar's end mark, perhaps a second tar: extract it, or split it"
            )

    def _image(self, member: tarfile.TarInfo, content: tarfile.TarInfo) -> SourceItem | Ignored:
        """The item of a member whose bytes are those of another, which is the member itself unless that is a link."""
        name = self._prefix + member.name
        synset = synset_in(name.replace(".tar/", "/"))
        label, class_name = read_label(self._labels.get(_split_name(member.name)[0]), name)
        label = CLASS_INDEX.get(synset or "") if label is None else label
        return judged(self._item(name, content)._replace(label=label, synset=class_name or synset))

    def _item(self, name: str, content: tarfile.TarInfo) -> SourceItem:
        if content.issparse():
            return SourceItem(name, self._path, "sparse", self._base + content.offset, content.size)
        return SourceItem(name, self._path, "range", self._base + content.offset_data, content.size)

    def _linked(self, link: tarfile.TarInfo, members: Mapping[str, tarfile.TarInfo]) -> SourceItem | Ignored:
        found: tarfile.TarInfo | None = link
        for _ in range(_MAX_LINKS):
            if found is None or found.isreg():
                break
            folder = posixpath.dirname(found.name) if found.issym() else ""
            found = members.get(posixpath.normpath(posixpath.join(folder, found.linkname)))
        if found is None or not found.isreg():
            return self._damage(link.name, f"a link to {link.linkname!r}, which is no file of the tar")
        return self._image(link, found)

    def _damage(self, name: str, problem: str) -> SourceItem:
        return SourceItem(self._prefix + name, self._path, "damaged", problem=problem)

    def _read_at(self, offset: int, size: int) -> bytes:
        self._file.seek(offset)
        return self._file.read(size)


def _split_name(name: str) -> tuple[str, str]:
    """Split a member's name into (key, extension) as WebDataset does: at the first dot after the last slash."""
    folder, slash, file = name.rpartition("/")
    stem, _, extension = file.partition(".")
    return folder + slash + stem, extension.lower()
