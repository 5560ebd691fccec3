"""JSON documents that state their format and version, so that a reader can refuse what it does not understand."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.storage.uris import read_bytes
from sr3core import strict_json
from sr3core.errors import DataError, Sr3Error


@dataclass(frozen=True, kw_only=True, slots=True)
class JsonFormat:
    """One kind of JSON document: what it is called, and what to tell a user whose document cannot be read."""

    title: str
    """What a document is called in messages, such as "manifest"."""
    version: int
    """The version that is written, and the only one that is read but for also_read."""
    also_read: tuple[int, ...] = ()
    """Other versions that are read; a document's own content says that it is of one of them."""
    name: str | None = None
    """Value of the document's "format"; None if it states only its version."""
    if_damaged: str
    """Remedy for a damaged document, such as "delete it and run `sr3 prepare` again"."""
    if_other_version: str
    """Remedy for a document of another version."""
    error: type[Sr3Error] = DataError
    """What is raised for a document that cannot be read."""

    @property
    def header(self) -> dict[str, Any]:
        """The keys that every document begins with."""
        return {**({} if self.name is None else {"format": self.name}), "format_version": self.version}

    def encode(self, content: dict[str, Any], compact: bool = False) -> bytes:
        """Encode a document, its header first; compact: on one line, for documents that only programs read."""
        document = {**self.header, **content}
        if compact:
            return strict_json.dumps(document, separators=(",", ":")).encode()
        return (strict_json.dumps(document, indent=1) + "\n").encode()

    def read(self, uri: str | Path) -> dict[str, Any]:
        """Read a document, header included.

        Raises:
            error: it is damaged, or of another format or version.
            StorageError: it does not exist, or cannot be read.
        """
        try:
            document = strict_json.loads(read_bytes(str(uri)))
        except (ValueError, RecursionError) as error:
            raise self.error(f"{uri} is damaged ({error}); {self.if_damaged}") from error
        found = document if isinstance(document, dict) else {}
        version = found.get("format_version")
        if self.name is not None and found.get("format") != self.name:
            raise self.error(
                f"{uri} is not a {self.title}: its format is {found.get('format')!r}, not {self.name!r};"
                f" {self.if_damaged}"
            )
        if version != self.version and version not in self.also_read:
            newer = isinstance(version, int) and version > max((self.version, *self.also_read))
            raise self.error(
                f"{uri} has {self.title} format version {version!r}, this program reads {self.version};"
                f" {'install the newer sr3 that wrote it, or ' if newer else ''}{self.if_other_version}"
            )
        return found

    @contextlib.contextmanager
    def decoding(self, uri: str | Path) -> Iterator[None]:
        """Turn the errors of a block that takes a document apart into one that names the document.

        Raises:
            error: a key is missing, or a value is not of its type.
        """
        with decoding(uri, self.title, self.if_damaged, self.error):
            yield


@contextlib.contextmanager
def decoding(uri: str | Path, title: str, if_damaged: str, error: type[Sr3Error] = DataError) -> Iterator[None]:
    """Turn the errors of a block that reads JSON, or takes it apart, into one that names the document.

    Raises:
        error: it is not JSON, a key is missing, or a value is not of its type.
    """
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError) as cause:
        said = cause if isinstance(cause, Sr3Error) else _in_words(cause)
        raise error(f"{uri} is not a valid {title} ({said}); {if_damaged}") from cause


def _in_words(cause: Exception) -> str:
    return f"it lacks {cause.args[0]!r}" if type(cause) is KeyError else repr(cause)


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; an empty one if there is no file or it holds anything else: for what is made again."""
    try:
        document = strict_json.loads(path.read_bytes()) if path.is_file() else {}
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}
