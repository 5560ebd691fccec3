"""The stages of a run side by side: each with its own workers, failure budget and folder (section 4.3)."""

import logging
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass

from pipelines.runs.bucket_runs import BucketRun
from pipelines.runs.run_folder import Run, StageRun, read_metrics
from pipelines.runtime.progress_display import duration
from pipelines.settings.train import TrainConfig
from pipelines.training.checkpoints import steps_done
from pipelines.training.outcome import write_outcome
from pipelines.training.resources import check_resources, wait_for_resources
from pipelines.training.sample_grids import SampleGrids
from pipelines.training.trackers import check_trackers
from pipelines.training.worker_loop import train_stage
from sr3core.errors import Sr3Error, StorageError

PERIOD_SECONDS = 2.0
"""Interval between two checks of the stages' progress."""
LOG_SECONDS = 15.0
"""Interval between two progress lines in a job's log."""
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StageResult:
    """How a stage ended."""

    stage: str
    step: int
    """Its newest checkpoint's step."""
    error: str | None
    """Why it failed; None if it finished."""


def train_run(run: Run, names: Sequence[str] = ()) -> list[StageResult]:
    """Train the stages of a run in parallel on the running Ray cluster; a failed one does not stop the others.

    Args:
        run: the run.
        names: train only these stages; all by default. Finished stages are skipped.

    Raises:
        ConfigError: an unknown stage, or one that needs more than the cluster has or its autoscaler can add.
        DataError: the data do not fit a stage.
    """
    stages = [run.stage(name) for name in names] if names else list(run.stages)
    todo = [stage for stage in stages if steps_done(stage) < stage.config.num_steps]
    for stage in stages:
        if stage not in todo:
            log.info("%s: already trained to step %d", stage.name, stage.config.num_steps)
    check_stages([stage.config for stage in todo])
    if not todo:
        return [StageResult(stage.name, steps_done(stage), None) for stage in stages]
    for stage in todo:
        write_outcome(stage, None)
    waits: dict[str, str] = {}
    grids = SampleGrids(todo)
    over = threading.Event()
    try:
        futures = {stage.name: start(stage, waits, over) for stage in todo}
        watch(todo, futures, waits, lambda: _look(run.bucket, grids))
    finally:
        over.set()  # Ray shuts down after an interrupt, which is no reason to restart anything
    grids.finish()
    errors = {name: describe_failure(future) for name, future in futures.items()}
    for stage in todo:
        try:
            write_outcome(stage, errors[stage.name])
        except StorageError as error:  # a full disk may be why it failed; do not lose the results over it
            log.warning("%s: its outcome cannot be recorded: %s", stage.name, error)
    return [StageResult(stage.name, steps_done(stage), errors.get(stage.name)) for stage in stages]


def check_stages(configs: Sequence[TrainConfig]) -> None:
    """Check that stages can train here, before any of their files is written or deleted.

    Raises:
        ConfigError: one needs more than the cluster has or its autoscaler can add, or a tracker that is not installed.
    """
    for config in configs:
        check_resources(config)
        check_trackers(config.placement)


def _look(bucket: BucketRun | None, grids: SampleGrids) -> None:
    """Between two progress lines: fetch what workers on other machines wrote, and start sample grids."""
    if bucket is not None:
        bucket.pull()
    grids.look()


class Training(Future[None]):
    """A stage's training; as a context manager it completes with its block and keeps the error that ended it."""

    def __enter__(self) -> None:
        self.set_running_or_notify_cancel()

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> bool:
        if error is None:
            self.set_result(None)
        else:
            self.set_exception(error)
        return True  # result() and exception() report it


def start(stage: StageRun, waits: dict[str, str], over: threading.Event) -> Training:
    """Train a stage in its own daemon thread, which does not keep an interrupted command alive."""
    training = Training()

    def work() -> None:
        with training:
            train_when_there(stage, waits, over)

    threading.Thread(target=work, name=stage.name, daemon=True).start()
    return training


def train_when_there(stage: StageRun, waits: dict[str, str], over: threading.Event) -> None:
    """Train a stage as soon as its workers fit; until then `waits` says what it waits for. `over` prevents restarts."""

    def say(text: str) -> None:
        if stage.name not in waits:  # immediately: nodes may arrive before the next progress line
            log.info(text)
        waits[stage.name] = text

    if stage.config.placement.num_workers:
        wait_for_resources(stage.name, stage.config.placement, say)
        waits.pop(stage.name, None)
    train_stage(stage, over)


def watch(
    stages: Sequence[StageRun], futures: dict[str, Training], waits: dict[str, str], look: Callable[[], None]
) -> None:
    """Print progress until all have ended: a self-updating line on a terminal, plain lines in a job's log.

    Args:
        stages: those that train.
        futures: stage -> its training.
        waits: stage -> what it is waiting for; stages that train are not in it.
        look: called before each line.
    """
    printed = time.monotonic()
    while wait(futures.values(), timeout=PERIOD_SECONDS).not_done:
        look()
        line = " | ".join(waits.get(stage.name) or progress_of(stage) for stage in stages)
        if sys.stdout.isatty():
            print(f"\r\033[K{line}", end="", flush=True)
        elif time.monotonic() - printed >= LOG_SECONDS:
            printed = time.monotonic()
            print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)
    if sys.stdout.isatty():
        print()


def progress_of(stage: StageRun) -> str:
    """`32-64 120/500 loss 0.14 85 images/s, 0:40 left`, from metrics.jsonl; works for a run on another machine too."""
    total = stage.config.num_steps
    lines = [line for line in read_metrics(stage.metrics) if line["kind"] == "train"]
    if not lines:
        done = steps_done(stage)
        return f"{stage.name} {'starting' if not done else f'{done}/{total}'}"
    last = lines[-1]
    left = (total - last["step"]) * stage.config.batch_size / last["images_per_second"]
    speed = f"{last['images_per_second']:.0f} images/s"
    state = "done" if last["step"] >= total else f"{duration(left)} left"
    return f"{stage.name} {last['step']}/{total} loss {last['loss']:.4f} {speed}, {state}"


def describe_failure(future: Training) -> str | None:
    """Why a trainer failed, in one line: the worker's own error rather than Ray's wrapper; None if it did not."""
    error = future.exception()
    if error is None:
        return None
    failures = getattr(error, "worker_failures", None) or {}
    for cause in failures.values():
        cause = getattr(cause, "cause", cause)
        return f"{type(cause).__name__}: {cause}".splitlines()[0] if isinstance(cause, Sr3Error) else str(cause).strip()
    return str(error) if isinstance(error, Sr3Error) else f"{type(error).__name__}: {error}".strip()
