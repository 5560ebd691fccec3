"""One command at a time for each kind of work in a folder or bucket, by a lease in FOLDER/.lease/WORK.

A second command finds out who is at work, before it starts anything. How long a holder that was killed blocks others:

- on the same machine not at all: its process can be looked up, by the kernel's boot, its number and its start;
- elsewhere until its lease ends, LEASE_SECONDS after its last renewal. A command that comes in between waits and sees:
  a renewal means that the holder lives, and the command is refused; without one it takes over.

A lease costs a bucket three requests at first, two every LEASE_SECONDS / 4 and at most seven at the end. It leaves
nothing behind.
"""

import contextlib
import os
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from types import MappingProxyType
from typing import Literal

from pipelines.storage.leases.journal import Journal
from pipelines.storage.leases.lease import Lease, LeaseTakenError, describe, hold, is_held, refuse_if_held, remove_empty
from pipelines.storage.uris import absolute, exists, is_remote, join, list_files
from pipelines.storage.writable import nearest_that_exists, refuse_unwritable_folder
from sr3core.errors import StorageError

LEASE_SECONDS = 60.0
LEASES = ".lease"
"""Name of the folder of leases in a folder."""
Work = Literal["preparing", "training", "searching", "evaluating", "sampling", "upscaling", "demo"]
"""What excludes its like in a folder. Different kinds may go on side by side: a run is evaluated while it trains."""
_held: ContextVar[Mapping[str, Lease]] = ContextVar("held", default=MappingProxyType({}))
"""Leases of this call and its callers by their places: the steps of one command do not exclude one another."""


@contextlib.contextmanager
def working_in(folder: str, work: Work, part: str = "", wait: bool = False) -> Iterator[Lease]:
    """Hold the exclusive right to one kind of work in a folder for the duration of a block.

    Inside a block with the same folder and work, the lease is already held, and this does nothing.

    Args:
        folder: folder or prefix; it need not exist.
        work: what is done there.
        part: what it is done to, if others may do the same to other parts: a stage's name.
        wait: if another process does the same there, wait until it has ended.

    Raises:
        ConfigError: folder is a file.
        StorageError: another process does the same there; names its machine and number, and for how long. Or the folder
            cannot be written to.
    """
    place = _place(folder, work, part)
    known = _held.get()
    if place in known:
        yield known[place]
        return
    refuse_unwritable_folder(folder)
    with contextlib.ExitStack() as stack:
        if not is_remote(place):
            stack.callback(remove_empty, place, nearest_that_exists(os.path.dirname(os.path.dirname(place))))
        with _naming(folder):
            lease = stack.enter_context(
                hold(place, f"{work} {part}".rstrip(), LEASE_SECONDS, "wait" if wait else "prove")
            )
        stack.callback(_held.reset, _held.set({**known, place: lease}))
        yield lease


def refuse_if_busy(folder: str, work: Work, part: str = "") -> None:
    """What `working_in` would refuse, for a rehearsal.

    Raises:
        ConfigError, StorageError: as working_in does.
    """
    place = _place(folder, work, part)
    if place not in _held.get():
        refuse_unwritable_folder(folder)
        with _naming(folder):
            refuse_if_held(place)


def is_busy(folder: str, work: Work, part: str = "") -> bool:
    """Whether a process is at work there, this one or another; the folder may be read-only."""
    return is_held(Journal(_place(folder, work, part)).last())


def refuse_if_anything_runs(folder: str) -> None:
    """Refuse to delete what another process is working on, whatever it does there.

    Raises:
        StorageError: names the process.
    """
    root = _root(folder)
    found = list_files(root) if is_remote(root) or exists(root) else ()
    for work in sorted({name.partition("/")[0] for name, _ in found}):
        if join(root, work) not in _held.get():
            with _naming(folder):
                refuse_if_held(join(root, work))


def _place(folder: str, work: Work, part: str) -> str:
    return join(_root(folder), f"{work}-{part}" if part else work)


def _root(folder: str) -> str:
    """Where a folder's leases are, however the folder is written."""
    return join(folder if is_remote(folder) else os.path.realpath(os.path.expanduser(absolute(folder))), LEASES)


@contextlib.contextmanager
def _naming(folder: str) -> Iterator[None]:
    """Name the folder instead of its lease."""
    try:
        yield
    except LeaseTakenError as error:
        raise StorageError(
            f"{folder} is in use by {describe(error.entry)}; wait for it with --wait, stop it, or choose another folder"
        ) from error
