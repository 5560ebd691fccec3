"""A lease on a storage: the exclusive right to work on something, for as long as it is renewed.

It is a journal whose last entry states who holds the lease and until when. A holder that dies stops renewing; its lease
can be taken once it has expired, or at once if the holder ran on this machine and is known to have ended. The clocks of
the machines must differ by less than the lease's length (`sr3 doctor` compares them).
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
"""Attempts to renew within a lease's length; all but one of them may fail."""
_KEPT = 16
"""Newest entries that are kept, so that a listing always finds some."""


class Lease:
    """A lease that this process holds; obtained from `hold`."""

    def __init__(self, journal: Journal, seconds: float, entry: Entry) -> None:
        self._journal, self._seconds, self._entry = journal, seconds, entry
        self._until = time.monotonic() + seconds
        self._lost = ""
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._renew_until_over, name="lease", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Check that this process still holds the lease.

        Raises:
            StorageError: another process holds it, or it could not be renewed in time.
        """
        if not self._lost and time.monotonic() > self._until:
            self._lost = "it could not be renewed in time"
        if self._lost:
            raise StorageError(
                f"{self._journal.uri}: this process has lost the lease: {self._lost};"
                " run the same command again to resume"
            )

    def release(self) -> None:
        """Release the lease; if the storage does not answer, it expires."""
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
    """Hold a lease for the duration of a block, and renew it meanwhile.

    Args:
        uri: folder or prefix of the lease.
        purpose: what it is for; shown to whoever finds the lease taken.
        seconds: how long it lasts without renewal, and so how long others wait for a holder that died elsewhere.

    Raises:
        StorageError: another process holds it; names it, since when, and when the lease would be free.
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
    """Return the last entry of a lease that is free.

    Raises:
        StorageError: a process holds it; names it.
    """
    last = Journal(uri).last()
    if is_held(last):
        raise StorageError(_refusal(uri, last))
    return last


def is_held(entry: Entry) -> bool:
    """Whether the last entry of a lease's journal excludes other processes."""
    return entry.content.get("until", 0.0) > time.time() and not _is_gone(entry.content.get("process"))


def describe(entry: Entry) -> str:
    """Describe the holder in words."""
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(entry.content.get("since", 0.0)))
    return f"{entry.content.get('owner')} ({entry.content.get('purpose')}, since {since})"


def owner() -> str:
    """Describe this process in words: process, host, and the Ray job if it is one."""
    job = os.environ.get("RAY_JOB_SUBMISSION_ID")
    return f"process {os.getpid()} on {socket.gethostname()}" + (f", job {job}" if job else "")


def process_identity() -> list[Any] | None:
    """What identifies this process: the kernel's boot id, the pid namespace, the pid, and when it started.

    None if the system does not tell.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return [boot, os.readlink("/proc/self/ns/pid"), os.getpid(), _started(os.getpid())]
    except OSError:
        return None


def _is_gone(process: list[Any] | None) -> bool:
    """Whether a process is known to have ended; False if it cannot be seen from here."""
    ours = process_identity()
    if process is None or ours is None or process[:2] != ours[:2]:
        return False
    return _started(process[2]) != process[3]


def _started(pid: int) -> int | None:
    """When a process started, in clock ticks after the boot; None if there is no such process, or it is a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()  # its name may hold anything
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def _refusal(uri: str, last: Entry) -> str:
    left = max(last.content.get("until", 0.0) - time.time(), 0.0)
    return (
        f"{uri}: {describe(last)} is working on it; if that process no longer exists, run the same command again in"
        f" {left:.0f} s"
    )


def _until(seconds: float) -> float:
    return time.time() + seconds


def _serial() -> str:
    return secrets.token_hex(8)
