"""Preparations that are interrupted in the middle of a shard, and the processes that run them.

A named pipe in place of an image stops them there: a process that reads it waits until it is killed. The pipe is laid
when the source has been listed, since only regular files are images.
"""

import contextlib
import io
import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from PIL import Image

from pipelines.prepare import preparation
from pipelines.prepare.plan.plan_lines import PlanLines
from pipelines.prepare.plan.shard_plan import Plan
from pipelines.prepare.writing.progress import PrepareProgress
from pipelines.settings.prepare import PrepareConfig
from sr3core.config import to_dict
from tests.commands import ROOT, clean_environment
from tests.processes import wait_for

DRIVER = """
# argv: address of a Ray, or "local" for one of its own; perhaps an image that becomes a pipe once it is planned.
# Prepares each configuration that it reads a line of.
import json, os, sys
from tests.ray_head import init_ray
from pipelines.settings.prepare import PrepareConfig
from pipelines.prepare.preparation import prepare
from sr3core.config import from_dict
from sr3core.errors import Sr3Error
local = {"num_cpus": 2, "object_store_memory": 100_000_000, "include_dashboard": False}
ours = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
if len(sys.argv) > 2:
    from tests.faults.interrupted_preparations import Pipe
    Pipe(sys.argv[2]).lay_after_planning()
init_ray(sys.argv[1], runtime_env={"env_vars": ours}, log_to_driver=False, **local)
for line in sys.stdin:
    try:
        summary = prepare(from_dict(PrepareConfig, json.loads(line)))
        answer = {"written": summary.num_shards_written}
    except Sr3Error as error:
        answer = {"error": str(error), "kind": type(error).__name__}
    print("ANSWER", json.dumps(answer), flush=True)
"""


def quiet(_: PrepareProgress) -> None:
    """Progress that nobody reads."""


def picture(seed: int, side: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def config_for(source: object, out: object, **changes: object) -> PrepareConfig:
    defaults = {"stages": ("8-16", "16-32"), "validation_fraction": 0.2, "samples_per_shard": 4}
    return PrepareConfig(source=str(source), out=str(out), **{**defaults, **changes})  # type: ignore[arg-type]


def data_of(out: Path) -> dict[str, bytes]:
    """Shards, indices and rejects: everything that an interruption must not change."""
    found = (path for path in out.glob("*/*") if path.name != "manifest.json")
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(found)}


class Pipe:
    """A named pipe in place of an image: blocks the worker that reads it."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._data = self.path.read_bytes()
        self._writer: int | None = None

    def lay_after_planning(self) -> None:
        """Let this process's next preparation lay the pipe when it has written its plan."""
        write_plan = preparation.write_plan

        def write_then_lay(config: PrepareConfig, plan: Plan, lines: PlanLines) -> None:
            write_plan(config, plan, lines)
            pipe = self.path.with_name(f"{self.path.name}.pipe")
            os.mkfifo(pipe)
            os.replace(pipe, self.path)
            preparation.write_plan = write_plan

        preparation.write_plan = write_then_lay

    def reader(self) -> int:
        """The process that waits for the pipe, as soon as there is one."""
        found: list[int] = []

        def look() -> bool:
            if self._writer is None:
                if not stat.S_ISFIFO(self.path.stat().st_mode):
                    return False
                try:
                    self._writer = os.open(self.path, os.O_WRONLY | os.O_NONBLOCK)
                except OSError:  # no reader yet
                    return False
            found[:] = [pid for pid in self._holders() if pid != os.getpid()]
            return bool(found)

        wait_for(look)
        return found[0]

    def heal(self) -> None:
        """Put the image back, and send it to the process that already waits: the killed one's replacement."""
        healed = self.path.with_name(f"{self.path.name}.healed")
        healed.write_bytes(self._data)
        os.replace(healed, self.path)
        if self._writer is not None:
            with contextlib.suppress(BrokenPipeError):  # nobody waits
                os.write(self._writer, self._data)  # fits into the pipe
            os.close(self._writer)
            self._writer = None

    def _holders(self) -> Iterator[int]:
        for link in Path("/proc").glob("[0-9]*/fd/*"):
            try:
                if os.readlink(link) == str(self.path):
                    yield int(link.parts[2])
            except OSError:
                continue


class Driver:
    """A Python process that prepares each configuration that it reads as a line; leaving the block ends it."""

    def __init__(
        self,
        folder: Path,
        script: str,
        *arguments: str,
        within: tuple[str, ...] = (),
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self._log_path = folder / "driver.log"
        self._log = open(self._log_path, "wb")  # noqa: SIM115
        self.process = subprocess.Popen(
            [*within, sys.executable, "-c", script, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=clean_environment(**{"PYTHONPATH": str(ROOT), **(variables or {})}),
            text=True,
            start_new_session=True,
        )

    def __enter__(self) -> "Driver":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)  # whatever it has started and not ended
            self.process.wait()
            self._log.close()

    def tell(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def answer(self) -> Any:
        """Its next answer; Ray writes to the same stream."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("ANSWER "):
                return json.loads(line.removeprefix("ANSWER "))
        raise AssertionError(f"the driver ended: {self._log_path.read_text()[-3000:]}")

    def prepare(self, config: PrepareConfig) -> Any:
        self.tell(json.dumps(to_dict(config)))
        return self.answer()
