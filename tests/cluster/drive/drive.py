"""Drives every command through places that it cannot use, in one process, which `unshare -Urm` lets mount disks.

    unshare -Urm python -m tests.cluster.drive.drive FOLDER RESULTS PART …

The parts are methods of Drive. RAY_ADDRESS names a port at which nobody listens: a call that reaches Ray ends there, at
once and in a line.
"""

import contextlib
import io
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from cluster.catalog import COMMANDS
from cluster.cli import main
from tests.cluster.drive import bad_places, good_places
from tests.cluster.drive.commands import Call, calls, calls_with_places
from tests.cluster.drive.places import WatchedFolder

PHOTOS = Path(__file__).resolve().parents[3] / "pipelines" / "demo_photos"
HANGS_AFTER = 120
"""Seconds after which a call is taken to hang; none takes more than a few."""


class Hang(BaseException):
    """A call that does not end."""


@dataclass(frozen=True)
class Cell:
    """What a call ended with."""

    command: str
    where: str
    """What was wrong: `--run: missing`, `run/config.json: half`, `read-only`."""
    words: list[str]
    outcome: str
    """done, refused, ray (it got as far as Ray), fault (a traceback), hang."""
    status: int | None
    said: str
    """What it printed, both streams."""
    place: str | None
    """The place that cannot be used."""
    seconds: float
    """Of the processor."""
    stray: tuple[str, ...] = ()
    """What it changed outside the places that it was told to write into."""


def run(call: Call, where: str, place: str | None = None, encoding: str = "utf-8") -> Cell:
    """Call a command as its program would, with streams of an encoding."""
    logging.root.handlers.clear()
    streams = [io.TextIOWrapper(io.BytesIO(), encoding=encoding, write_through=True) for _ in range(2)]
    started, status, fault = time.process_time(), None, ""
    signal.alarm(HANGS_AFTER)
    try:
        with contextlib.redirect_stdout(streams[0]), contextlib.redirect_stderr(streams[1]):
            status = main(call.words)
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    except Hang:
        fault = "hang"
    except Exception:  # noqa: BLE001 - whatever a user would see as a traceback
        fault = traceback.format_exc()
    finally:
        signal.alarm(0)
    said = "".join(stream.buffer.getvalue().decode(errors="backslashreplace") for stream in streams) + fault  # type: ignore[attr-defined]
    return Cell(
        call.command, where, call.words, _outcome(status, said), status, said, place, time.process_time() - started
    )


def _outcome(status: int | None, said: str) -> str:
    if status is None:
        return "hang" if said.endswith("hang") else "fault"
    if "Traceback" in said:
        return "fault"
    if "no Ray cluster answers at" in said or "import of ray" in said:
        return "ray"
    return "done" if status == 0 else "refused"


class Drive:
    """All calls, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        with socket.create_server(("127.0.0.1", 0)) as closed:
            closed_port = closed.getsockname()[1]
        os.environ["RAY_ADDRESS"] = f"127.0.0.1:{closed_port}"
        os.environ["RAY_AUTH_MODE"] = "disabled"
        os.environ.update(AWS_ACCESS_KEY_ID="x", AWS_SECRET_ACCESS_KEY="y", SR3_WORKING_COPIES=str(folder / "copies"))
        self.folder, self.root = folder, folder / "work"
        good_places.make(self.root, PHOTOS)
        self.bad = bad_places.make(folder / "bad", closed_port)
        (folder / "stale" / "ray").mkdir(parents=True)
        (folder / "stale" / "ray" / "ray_current_cluster").write_text(f"127.0.0.1:{closed_port}")
        (folder / "here").mkdir()
        (folder / "odd").mkdir()
        (folder / "work 100%").symlink_to(self.root)
        self.watched = WatchedFolder(folder)
        self.values = {"busy_port": self._listening.getsockname()[1], "closed_port": closed_port}
        os.environ["HOME"] = str(folder)
        os.chdir(folder / "here")

    def cell(self, call: Call, where: str, known: str = "", **more: Any) -> Cell:
        """Call a command, see what it changed, and undo that.

        Args:
            call: the call.
            where: what is wrong.
            known: a file that has been changed for it.
            more: of `run`.
        """
        cell = run(call, where, **more)
        places = [self._path(place) for place in call.writes_into(self.root)]
        changed = [path for path in self.watched.changes() if path != known]
        stray = [path for path in changed if not any(_is_at(path, place) for place in places)]
        self.watched.restore()
        return replace(cell, stray=tuple(stray))

    def _named(self, call: Call) -> str | None:
        """The folder of the good places, if a call names one of them."""
        return str(self.root) if any(str(self.root) in argument for argument in call.arguments) else None

    def _path(self, place: str) -> str:
        """A place by its own path, however it is written."""
        place = os.path.expanduser(unquote(place.removeprefix("file://")) if place.startswith("file:") else place)
        for name in (*(f"odd/{name}" for name in bad_places.ODD_NAMES), "work 100%"):
            place = place.replace(f"{self.folder}/{name}/", f"{self.root}/")
        return os.path.join(os.getcwd(), place)

    def calls(self, root: Path | None = None) -> Iterator[Call]:
        """Every call, with the good places below a folder."""
        return (call.filled(root=root or self.root, **self.values) for call in calls())

    def rights(self) -> Iterator[Cell]:
        """Nothing is wrong but Ray; on terminals of several encodings."""
        for encoding in ("utf-8", "ascii"):
            for call in self.calls():
                yield self.cell(call, f"nothing ({encoding})", encoding=encoding)

    def bad_options(self) -> Iterator[Cell]:
        """Each option that takes a place gets each place that cannot be used; Ray is not even imported."""
        ray = {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] == "ray"}
        sys.modules["ray"] = None  # type: ignore[assignment]
        for call, option in calls_with_places():
            for name, place in self.bad.items():
                filled = call.filled(root=self.root, **self.values).with_place(option, place)
                yield self.cell(filled, f"{option.name}: {name}", place=place)
        sys.modules |= ray

    def damaged_files(self) -> Iterator[Cell]:
        """Each file of text in what a command reads is damaged: for the first that reads it in every way."""
        for name in bad_places.texts(self.watched.good / "work"):
            path = self.root / name
            reading = {call.command: call for call in reversed([*self.calls()]) if call.reads(path)}
            for number, call in enumerate(reading.values()):
                for damage in bad_places.DAMAGE if number == 0 else bad_places.FOREIGN:
                    change = bad_places.DAMAGE[damage]
                    path.write_bytes(change((self.watched.good / "work" / name).read_bytes()))
                    yield self.cell(call, f"{name}: {damage}", known=str(path), place=str(path))

    def odd_names(self) -> Iterator[Cell]:
        """All is well, in folders of odd names."""
        for name in bad_places.ODD_NAMES:
            odd = self.folder / "odd" / name
            odd.mkdir()
            mount("--bind", self.root, odd)
            self.watched.unwatched.add(f"odd/{name}")  # it is the same as work/
            for call in self.calls(odd):
                yield self.cell(call, f"named {name!r}")
            unmount(odd)

    def spellings(self) -> Iterator[Cell]:
        """All is well, in a folder that is written in another way."""
        for name, root in (("home", "~/work"), ("URL", f"file://{quote(str(self.folder))}/work%20100%25")):
            for call in self.calls(Path("ROOT")):
                spelled = Call(call.command, tuple(a.replace("ROOT/", f"{root}/") for a in call.arguments))
                yield self.cell(spelled, f"spelled as {name}")

    def full(self) -> Iterator[Cell]:
        """A disk without a byte left."""
        mount("-t", "tmpfs", "-o", "size=64m", "tmpfs", self.root)
        self.watched.restore()
        for call in self.calls():
            with contextlib.suppress(OSError), (self.root / "filling").open("ab", buffering=0) as file:
                while True:
                    file.write(bytes(1 << 16))
            yield run(call, "full", self._named(call))
        unmount(self.root)

    def rays(self) -> Iterator[Cell]:
        """Every kind of Ray that does not start or is not there, for every command that would use it."""
        garbage = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=_answer_garbage, args=(garbage,), daemon=True).start()
        port, closed = garbage.getsockname()[1], self.values["closed_port"]
        addresses = (f"127.0.0.1:{closed}", f"ray://127.0.0.1:{closed}", f"http://127.0.0.1:{closed}", "http://[::1")
        addresses += (f"127.0.0.1:{port}", f"http://127.0.0.1:{port}", "nonsense", "auto", "local")
        for address in addresses:
            folder = {"auto": str(self.folder / "stale"), "local": "/proc"}.get(address, "/tmp")
            os.environ |= {"RAY_ADDRESS": address, "RAY_TMPDIR": folder}
            for call in self.calls():
                if COMMANDS[call.command].takes_address and "--dry-run" not in call.arguments:
                    named = address.replace(str(closed), "CLOSED").replace(str(port), "GARBAGE")
                    yield self.cell(call, f"Ray at {named}")

    def read_only(self) -> Iterator[Cell]:
        """A disk that cannot be written."""
        mount("--bind", self.root, self.root)
        mount("-o", "remount,bind,ro", self.root)
        for call in self.calls():
            yield self.cell(call, "read-only", place=self._named(call))
        unmount(self.root)


def _is_at(path: str, place: str) -> bool:
    """Whether a path is a place, is below it or had to be made for it."""
    return path == place or path.startswith(f"{place}/") or place.startswith(f"{path}/")


def _answer_garbage(server: socket.socket) -> None:
    while True:
        connection, _ = server.accept()
        with contextlib.suppress(OSError), connection:
            connection.recv(1000)
            connection.sendall(b"\0\1garbage\r\n\r\n")


def mount(*arguments: object) -> None:
    """Mount a disk that this process alone sees."""
    subprocess.run(["mount", *map(str, arguments)], check=True)


def unmount(folder: Path) -> None:
    """Unmount it, also if a database has a file open there."""
    subprocess.run(["umount", "--lazy", folder], check=True)


def _hang(*_: object) -> None:
    raise Hang


if __name__ == "__main__":
    signal.signal(signal.SIGALRM, _hang)
    drive = Drive(Path(sys.argv[1]).resolve())
    with open(sys.argv[2], "w", encoding="utf-8") as file:
        for part in sys.argv[3:]:
            for cell in getattr(drive, part)():
                file.write(json.dumps(asdict(cell)) + "\n")
