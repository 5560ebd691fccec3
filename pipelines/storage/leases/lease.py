"""A lease on a storage: the exclusive right to work on something, for as long as it is renewed.

It is a journal whose last entry states who holds the lease and until when. A holder that dies stops renewing; its lease
can be taken once it has expired, or at once if the holder ran on this machine and is known to have ended. The clocks of
the machines must differ by less than the lease's length (`sr3 doctor` compares them).
"""

import contextlib
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn

from pipelines.storage.leases.journal import Entry, Journal
from sr3core.errors import StorageError

RENEWALS = 4
"""Attempts to renew within a lease's length; all but one of them may fail."""
POLL_SECONDS = 3.0
"""Interval between two looks at a lease that another process holds."""
Patience = Literal["refuse", "prove", "wait"]
"""What becomes of a process that finds a lease taken: refused at once; refused when the holder has proved to be alive,
since it runs on this machine or has renewed the lease meanwhile; waits until the lease is free."""
_KEPT = 4
"""Newest entries that are kept, so that a listing always finds some."""
log = logging.getLogger(__name__)
_held_here: "ContextVar[tuple[Lease, ...]]" = ContextVar("held_here", default=())


class LeaseTakenError(StorageError):
    """Another process holds a lease."""

    def __init__(self, uri: str, entry: Entry) -> None:
        """Describe the holder, and when the lease would be free without it."""
        self.entry = entry
        left = max(entry.content.get("until", 0.0) - time.time(), 0.0)
        super().__init__(
            f"{uri}: {describe(entry)} is working on it; if that process no longer exists, run the same command again"
            f" in {left:.0f} s"
        )


class LeaseLostError(StorageError):
    """A lease that this process worked under is no longer its command's."""


@dataclass(frozen=True, slots=True)
class Fence:
    """A lease by which other processes, on any machine, may write for its holder; sent to them as it is."""

    uri: str
    token: str
    """What the holder's entries have in common, and nobody else's."""

    def check(self) -> None:
        """Check that the holder still holds the lease; a storage that does not answer is no reason to stop.

        Raises:
            LeaseLostError: another process holds it, or nobody.
        """
        try:
            last = Journal(self.uri).last()
        except StorageError:
            return
        if last.content.get("token") != self.token:
            raise_lost(self.uri, f"{describe(last)} took it" if is_held(last) else "its holder has ended")


def raise_lost(uri: str, why: str) -> NoReturn:
    """Say that a lease is lost.

    Raises:
        LeaseLostError: always.
    """
    raise LeaseLostError(f"{uri}: this process has lost the lease: {why}; run the same command again to resume")


class Lease:
    """A lease that this process holds; obtained from `hold`."""

    def __init__(self, journal: Journal, seconds: float, entry: Entry) -> None:
        self._journal, self._seconds, self._entry = journal, seconds, entry
        self._until = time.monotonic() + seconds
        self._taken = ""
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._renew_until_over, name="lease", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Check that this process holds the lease now, before a step that no other process may take at the same time.

        Raises:
            StorageError: another process holds it, or it could not be renewed in time.
        """
        self.check_not_taken()
        if time.monotonic() > self._until:
            raise_lost(self._journal.uri, "it could not be renewed in time")

    def check_not_taken(self) -> None:
        """Check that no other process has taken the lease; a storage that did not answer for a while is no reason.

        Raises:
            StorageError: another process holds it.
        """
        if self._taken:
            raise_lost(self._journal.uri, self._taken)

    def release(self) -> None:
        """Release the lease and leave nothing behind; if the storage does not answer, it expires."""
        self._over.set()
        self._thread.join()
        if not self._taken:
            with contextlib.suppress(StorageError):
                self._journal.forget_all(self._entry)

    @property
    def fence(self) -> Fence:
        """What processes that write for this one check."""
        return Fence(self._journal.uri, self._entry.content["token"])

    def _renew_until_over(self) -> None:
        while not self._taken and not self._over.wait(self._seconds / RENEWALS):
            with contextlib.suppress(StorageError):  # the storage may answer the next time; check() looks at the clock
                self._renew()

    def _renew(self) -> None:
        asked = time.monotonic()
        content = {**self._entry.content, "until": _until(self._seconds), "serial": _serial()}
        entry = self._journal.append(self._entry, content, is_last=asked < self._until)
        if entry is None:
            self._taken = f"{describe(self._journal.last())} took it"
            return
        self._entry, self._until = entry, asked + self._seconds
        self._journal.forget_one(entry.number - _KEPT)


@contextlib.contextmanager
def hold(uri: str, purpose: str, seconds: float, patience: Patience = "refuse") -> Iterator[Lease]:
    """Hold a lease for the duration of a block, and renew it meanwhile.

    Args:
        uri: folder or prefix of the lease.
        purpose: what it is for; shown to whoever finds the lease taken.
        seconds: how long it lasts without renewal, and so how long others wait for a holder that died elsewhere.
        patience: what to do while another process holds it.

    Raises:
        LeaseTakenError: another process holds it; names it, since when, and when the lease would be free.
    """
    journal = Journal(uri)
    content = {"owner": owner(), "process": process_identity(), "purpose": purpose, "since": time.time()}
    content["token"] = _serial()
    lease = Lease(journal, seconds, _take(journal, content, seconds, patience))
    before = _held_here.set((*_held_here.get(), lease))
    try:
        yield lease
    finally:
        _held_here.reset(before)
        lease.release()


def fences_here() -> tuple[Fence, ...]:
    """The fences of all leases that this call and its callers hold."""
    return tuple(lease.fence for lease in _held_here.get())


def check_all_held() -> None:
    """Check that no other process has taken a lease that this call and its callers hold.

    Raises:
        LeaseLostError: another process holds one.
    """
    for lease in _held_here.get():
        lease.check_not_taken()


def _take(journal: Journal, content: dict[str, Any], seconds: float, patience: Patience) -> Entry:
    while True:
        last = _when_free(journal, patience)
        try:
            entry = journal.append(last, {**content, "until": _until(seconds), "serial": _serial()})
        except StorageError as error:
            if isinstance(error.__cause__, FileNotFoundError):  # who releases it has just removed its empty folder
                continue
            raise
        if entry is not None:
            return entry  # else another process was faster: it holds the lease, or has released it already


def _when_free(journal: Journal, patience: Patience) -> Entry:
    """The last entry of a lease, once it is free; see Patience."""
    first = last = journal.last()
    if is_held(last) and not _must_leave(first, last, patience):
        log.warning("waiting: %s is %s", describe(last), "at work" if patience == "wait" else "at work, or was killed")
    while is_held(last):
        if _must_leave(first, last, patience):
            raise LeaseTakenError(journal.uri, last)
        time.sleep(POLL_SECONDS)
        last = journal.last()
    return last


def _must_leave(first: Entry, last: Entry, patience: Patience) -> bool:
    lives = last.number > first.number or _is_here(last.content.get("process"))
    return patience == "refuse" or (patience == "prove" and lives)


def refuse_if_held(uri: str) -> None:
    """Refuse a lease that another process holds.

    Raises:
        LeaseTakenError: names it.
    """
    last = Journal(uri).last()
    if is_held(last):
        raise LeaseTakenError(uri, last)


def remove_empty(path: str, last: str) -> None:
    """Remove the folders that a lease made, from its own up to the one that was there before, if nothing is in them.

    Args:
        path: the lease's own, on a local disk.
        last: the folder that was there before.
    """
    with contextlib.suppress(OSError):  # something is in it, or it is gone
        if not os.path.exists(path):
            path = os.path.dirname(path)
        while path != last:
            os.rmdir(path)
            path = os.path.dirname(path)


def is_held(entry: Entry) -> bool:
    """Whether the last entry of a lease's journal excludes other processes."""
    return entry.content.get("until", 0.0) > time.time() and not _is_gone(entry.content.get("process"))


def describe(entry: Entry) -> str:
    """Describe the holder in words: process, machine, purpose, since when."""
    began = entry.content.get("since", 0.0)
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(began))
    minutes = max(time.time() - began, 0.0) / 60
    age = f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.0f} h"
    return f"{entry.content.get('owner')} ({entry.content.get('purpose')}, since {since}, for {age})"


def owner() -> str:
    """Describe this process in words: process, host, and the Ray job if it is one."""
    job = os.environ.get("RAY_JOB_SUBMISSION_ID")
    return f"process {os.getpid()} on {socket.gethostname()}" + (f", job {job}" if job else "")


def process_identity() -> list[Any] | None:
    """What identifies this process: the kernel's boot id, the pid namespace, the pid, and when it started.

    None if the system does not tell.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        return [boot, os.readlink("/proc/self/ns/pid"), os.getpid(), _started(os.getpid())]
    except OSError:
        return None


def _is_gone(process: list[Any] | None) -> bool:
    """Whether a process is known to have ended; False if it cannot be seen from here."""
    return process is not None and _is_here(process) and _started(process[2]) != process[3]


def _is_here(process: list[Any] | None) -> bool:
    """Whether a process can be looked up from here: it is of this machine's present boot and of our pid namespace."""
    ours = process_identity()
    return process is not None and ours is not None and process[:2] == ours[:2]


def _started(pid: int) -> int | None:
    """When a process started, in clock ticks after the boot; None if there is no such process, or it is a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()  # its name may hold anything
    except OSError:
        return None
    return None if fields[0] in b"ZX" else int(fields[19])


def _until(seconds: float) -> float:
    return time.time() + seconds


def _serial() -> str:
    return secrets.token_hex(8)
