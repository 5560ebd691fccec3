"""A lease on a storage: the right to work on something alone, for as long as it is renewed.

It is a journal whose last entry says who holds it and until when. A holder that dies stops renewing, and its lease is
taken over when it expires; at once where the holder was on this machine and is seen to be gone. Clocks of machines may
differ by less than the lease's length (`sr3 doctor` compares them).
"""

import contextlib
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipelines.storage.journal import Entry, Journal
from sr3core.errors import StorageError

RENEWALS = 4
"""Within a lease's length; all but one may fail."""
_KEPT = 16
"""Entries that stay, so that a listing always meets some."""


class Lease:
    """The lease that this process holds; `hold` makes it."""

    def __init__(self, journal: Journal, seconds: float, entry: Entry) -> None:
        self._journal, self._seconds, self._entry = journal, seconds, entry
        self._until = time.monotonic() + seconds
        self._lost = ""
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._renew_until_over, name="lease", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Refuse to go on without the lease.

        Raises:
            StorageError: another process has it, or it could not be renewed in time.
        """
        if not self._lost and time.monotonic() > self._until:
            self._lost = "it could not be renewed in time"
        if self._lost:
            raise StorageError(
                f"{self._journal.uri}: this process has lost the lease: {self._lost}; give the same command again"
            )

    def release(self) -> None:
        """Give it back; where the storage does not answer, it expires."""
        self._over.set()
        self._thread.join()
        if not self._lost:
            with contextlib.suppress(StorageError):
                self._write(0.0)

    def _renew_until_over(self) -> None:
        while not self._lost and not self._over.wait(self._seconds / RENEWALS):
            with contextlib.suppress(StorageError):  # the storage may answer the next time; check() looks at the clock
                self._write(self._seconds)

    def _write(self, seconds: float) -> None:
        asked = time.monotonic()
        content = {**self._entry.content, "until": _until(seconds), "serial": _serial()}
        entry = self._journal.append(self._entry, content)
        if entry is None:
            self._lost = f"{describe(self._journal.last())} took it"
            return
        self._entry, self._until = entry, asked + seconds
        self._journal.forget(entry.number - _KEPT)


@contextlib.contextmanager
def hold(uri: str, purpose: str, seconds: float) -> Iterator[Lease]:
    """Take a lease for the length of a block, and renew it meanwhile.

    Args:
        uri: folder or prefix of the lease.
        purpose: what for, in words for whoever finds it taken.
        seconds: how long it lasts without renewal: how long everybody waits for a holder that died elsewhere.

    Raises:
        StorageError: another process holds it; says which, since when, and when it would be free.
    """
    journal, last = Journal(uri), refuse_if_held(uri)
    content = {"owner": owner(), "process": process_identity(), "purpose": purpose, "since": time.time()}
    entry = journal.append(last, {**content, "until": _until(seconds), "serial": _serial()})
    newest = journal.last()
    if entry is None or newest != entry:
        raise StorageError(_refusal(uri, newest))
    lease = Lease(journal, seconds, entry)
    try:
        yield lease
    finally:
        lease.release()


def refuse_if_held(uri: str) -> Entry:
    """The last entry of a lease that is free.

    Raises:
        StorageError: a process holds it; says which.
    """
    last = Journal(uri).last()
    if is_held(last):
        raise StorageError(_refusal(uri, last))
    return last


def is_held(entry: Entry) -> bool:
    """Whether the last entry of a lease's journal keeps others out."""
    return entry.content.get("until", 0.0) > time.time() and not _is_gone(entry.content.get("process"))


def describe(entry: Entry) -> str:
    """The holder, for a person."""
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(entry.content.get("since", 0.0)))
    return f"{entry.content.get('owner')} ({entry.content.get('purpose')}, since {since})"


def owner() -> str:
    """This process, for a person: host, process, and the Ray job where it is one."""
    job = os.environ.get("RAY_JOB_SUBMISSION_ID")
    return f"process {os.getpid()} on {socket.gethostname()}" + (f", job {job}" if job else "")


def process_identity() -> list[Any] | None:
    """What no other process has: the kernel's boot, the namespace of process numbers, the number, when it started.

    None where the system does not tell.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return [boot, os.readlink("/proc/self/ns/pid"), os.getpid(), _started(os.getpid())]
    except OSError:
        return None


def _is_gone(process: list[Any] | None) -> bool:
    """Whether a process is known to have ended; False where it cannot be seen from here."""
    ours = process_identity()
    if process is None or ours is None or process[:2] != ours[:2]:
        return False
    return _started(process[2]) != process[3]


def _started(pid: int) -> int | None:
    """When a process started, in clock ticks after the boot; None where there is none, or it is dead and unburied."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()  # its name may hold anything
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def _refusal(uri: str, last: Entry) -> str:
    left = max(last.content.get("until", 0.0) - time.time(), 0.0)
    return (
        f"{uri}: {describe(last)} is at work on it; if that process is no more, the same command can go on in"
        f" {left:.0f} s"
    )


def _until(seconds: float) -> float:
    return time.time() + seconds


def _serial() -> str:
    return secrets.token_hex(8)
