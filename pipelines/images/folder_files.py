"""What a folder or prefix holds: files that may be images, and what is ignored, by one rule for all commands."""

from collections.abc import Iterable, Iterator

from pipelines.images.file_names import IgnoredFiles, IgnoreReason, is_hidden
from pipelines.storage.local_files import Entry
from pipelines.storage.uris import absolute, list_entries, relative_to

_WHY = {
    "special": IgnoreReason.NOT_A_REGULAR_FILE,
    "folder": IgnoreReason.SUBFOLDER,
    "folder_again": IgnoreReason.FOLDER_AGAIN,
}


def files_below(
    uri: str, ignored: IgnoredFiles, *, outputs: Iterable[str] = (), recursive: bool = True
) -> dict[str, int]:
    """Name -> size of the files of a folder that are neither hidden nor special; the others are added to `ignored`.

    Args:
        uri: a folder, or an s3:// prefix.
        ignored: takes what is left out, by its name relative to the folder.
        outputs: folders that the command writes to: what is in them is no input. The folder itself is none of them.
        recursive: look into its folders too; else each is ignored by its name.

    Raises:
        StorageError: it cannot be listed, perhaps only at the moment.
    """
    return dict(each_file_below(uri, ignored, outputs=outputs, recursive=recursive))


def each_file_below(
    uri: str, ignored: IgnoredFiles, *, outputs: Iterable[str] = (), recursive: bool = True
) -> Iterator[tuple[str, int]]:
    """Yield what files_below collects, for folders of more files than the memory should hold."""
    yield from usable_files(uri, list_entries(uri, recursive), ignored, outputs)


def usable_files(
    uri: str, entries: Iterable[Entry], ignored: IgnoredFiles, outputs: Iterable[str] = ()
) -> Iterator[tuple[str, int]]:
    """Yield those of a folder's entries that each_file_below yields; the others are added to `ignored`."""
    folder = absolute(uri)
    own = tuple(f"{below}/" for output in outputs if (below := relative_to(absolute(output), folder)))
    for name, size, kind in entries:
        if own and name.startswith(own):
            ignored.add(name, IgnoreReason.OWN_OUTPUT)
        elif is_hidden(name):
            ignored.add(name, IgnoreReason.HIDDEN)
        elif kind != "file":
            ignored.add(name, _WHY[kind])
        else:
            yield name, size
