"""The stages of a run side by side: each with its own workers, failure budget and folder (section 4.3)."""

import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass

from pipelines.runs.bucket_runs import BucketRun
from pipelines.runs.run_folder import Run, StageRun, open_run
from pipelines.runtime.progress_display import print_progress
from pipelines.settings.train import TrainConfig
from pipelines.storage.leases.folder_lease import working_in
from pipelines.storage.leases.lease import LeaseLostError, check_all_held, fences_here
from pipelines.training.checkpoints import steps_done
from pipelines.training.fine_tuning import check_started
from pipelines.training.frozen_mean import baseline_of, freeze_mean
from pipelines.training.mean_scale import fix_scale
from pipelines.training.outcome import write_outcome
from pipelines.training.pulse import ask_to_stop, clear, read_pulse
from pipelines.training.resources import check_resources, wait_for_resources
from pipelines.training.sample_grids import SampleGrids
from pipelines.training.spending import Prices, Spending
from pipelines.training.stage_progress import progress_of
from pipelines.training.trackers import check_trackers
from pipelines.training.worker_loop import Ending, train_stage
from sr3core.errors import OverBudgetError, Sr3Error, StorageError, TrainingError

PERIOD_SECONDS = 2.0
"""Interval between two checks of the stages' progress."""
SAVE_SECONDS = 100.0
"""Time that an interrupted training has to save a checkpoint; a job is killed after 120 s."""
FREE = Prices()
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StageResult:
    """How a stage ended."""

    stage: str
    step: int
    """Its newest checkpoint's step."""
    error: str | None
    """Why it failed; None if it finished."""


def train_run(run: Run, names: Sequence[str] = (), prices: Prices = FREE) -> list[StageResult]:
    """Train the stages of a run in parallel on the running Ray cluster; a failed one does not stop the others.

    Args:
        run: the run.
        names: train only these stages; all by default. Finished stages are skipped.
        prices: of the cluster's nodes, and how much the run may cost.

    Raises:
        ConfigError: an unknown stage, or one that needs more than the cluster has or its autoscaler can add.
        DataError: the data do not fit a stage.
        StorageError: another process trains the run, or has taken a lease that this call holds: the workers then stop
            within seconds, and write nothing more.
        OverBudgetError: the run has cost as much as it may; its stages have saved checkpoints.
    """
    with working_in(run.location, "training"):
        return _train(run, names, prices)


def _train(run: Run, names: Sequence[str], prices: Prices) -> list[StageResult]:
    stages = [run.stage(name) for name in names] if names else list(run.stages)
    todo = [stage for stage in stages if steps_done(stage) < stage.config.num_steps]
    for stage in stages:
        if stage not in todo:
            log.info("%s: already trained to step %d", stage.name, stage.config.num_steps)
    check_stages([stage.config for stage in todo])
    check_started(todo)
    if not todo:
        return [StageResult(stage.name, steps_done(stage), None) for stage in stages]
    for stage in todo:
        clear(stage)
        write_outcome(stage, None)
    waits: dict[str, str] = {}
    grids, spending = SampleGrids(todo), Spending(run.path, prices)
    ending = Ending(threading.Event(), fences_here())
    futures: dict[str, Training] = {}
    try:
        for stage in sorted(todo, key=lambda stage: stage.mean is not None):  # what others start from comes first
            baseline = baseline_of(stage, run.stages)
            origin = None if baseline is None else Origin(baseline, futures.get(baseline.name))
            futures[stage.name] = start(stage, origin, waits, ending)
        watch(todo, futures, waits, lambda: _look(run.bucket, grids, spending))
    except (KeyboardInterrupt, OverBudgetError):
        ending.over.set()
        save_before_the_end(todo, futures)
        raise
    finally:
        ending.over.set()  # Ray shuts down after an interrupt, which is no reason to restart anything
    refuse_to_write_without_lease(futures)
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


def _look(bucket: BucketRun | None, grids: SampleGrids, spending: Spending) -> None:
    """Between two progress lines: fetch what workers on other machines wrote, start sample grids, count the cost."""
    spending.look()
    check_all_held()
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


@dataclass(frozen=True, slots=True)
class Origin:
    """The regression baseline that a stage starts from."""

    baseline: StageRun
    training: Training | None
    """Its training, if this command trains it."""

    def freeze_for(self, stage: StageRun, say: Callable[[str], None]) -> None:
        """Wait until the baseline is trained, and keep its weights for the stage.

        Raises:
            TrainingError: its training failed.
            CheckpointError: it was never trained.
        """
        if self.training is not None:
            say(f"waits for {self.baseline.name}, which it starts from")
            if self.training.exception() is not None:
                raise TrainingError(f"{stage.name} starts from {self.baseline.name}, whose training failed")
        freeze_mean(stage, self.baseline)


def start(stage: StageRun, origin: Origin | None, waits: dict[str, str], ending: Ending) -> Training:
    """Train a stage in its own daemon thread, which does not keep an interrupted command alive."""
    training = Training()

    def work() -> None:
        with training:
            train_when_there(stage, origin, waits, ending)

    threading.Thread(target=work, name=stage.name, daemon=True).start()
    return training


def train_when_there(stage: StageRun, origin: Origin | None, waits: dict[str, str], ending: Ending) -> None:
    """Train a stage as soon as what it starts from is trained and its workers fit.

    Args:
        stage: the stage.
        origin: the regression that it starts from; None for most stages.
        waits: says, under the stage's name, what it is waiting for.
        ending: when the command ends.
    """

    def say(text: str) -> None:
        if stage.name not in waits:  # immediately: nodes may arrive before the next progress line
            log.info("%s: %s", stage.name, text)
        waits[stage.name] = text

    if origin is not None:
        origin.freeze_for(stage, say)
        waits.pop(stage.name, None)
        if ending.over.is_set():
            return
    if stage.config.placement.num_workers:
        wait_for_resources(stage.name, stage.config.placement, say)
        waits.pop(stage.name, None)
    if origin is not None:
        stage = fix_scale(stage)
        if ending.over.is_set():
            return
    train_stage(stage, ending)


def watch(
    stages: Sequence[StageRun], futures: dict[str, Training], waits: dict[str, str], look: Callable[[], None]
) -> None:
    """Show the progress until all have ended: a line a stage.

    Args:
        stages: those that train.
        futures: stage -> its training.
        waits: stage -> what it is waiting for; stages that train are not in it.
        look: called before each line.
    """
    show = print_progress()
    show(*(progress_of(stage, waits.get(stage.name)) for stage in stages))
    while wait(futures.values(), timeout=PERIOD_SECONDS).not_done:
        look()
        show(*(progress_of(stage, waits.get(stage.name)) for stage in stages))
    show.end()


def save_before_the_end(stages: Sequence[StageRun], futures: dict[str, Training]) -> None:
    """At Ctrl-C: let the stages that train save a checkpoint, and say of each what is kept and what is lost.

    A second Ctrl-C ends the command without that. Workers that do not answer are given up after SAVE_SECONDS.
    """
    running = [stage for stage in stages if stage.name in futures and not futures[stage.name].done()]
    training = [stage for stage in running if read_pulse(stage.path) is not None]
    if training:
        names = ", ".join(stage.name for stage in training)
        log.info("%s: saving a checkpoint; Ctrl-C again ends at once and loses the steps since the last one", names)
        for stage in training:
            ask_to_stop(stage)
        wait([futures[stage.name] for stage in training], timeout=SAVE_SECONDS)
    for stage in running:
        stage = stage if stage.bucket is None else open_run(stage.location).stage(stage.name)
        log.info("%s", describe_what_is_kept(stage))
        write_outcome(stage, None, stopped=True)


def describe_what_is_kept(stage: StageRun) -> str:
    """`16-64: step 40 is saved; training resumes there`, or how many steps are lost."""
    saved, pulse = steps_done(stage), read_pulse(stage.path)
    done = max(saved, pulse.step if pulse else 0)
    if saved < done:
        start = f"training resumes at step {saved}" if saved else "training starts over"
        return f"{stage.name}: no checkpoint could be saved; {done - saved} steps are lost, {start}"
    return f"{stage.name}: step {saved} is saved; training resumes there" if saved else f"{stage.name}: had not begun"


def refuse_to_write_without_lease(futures: dict[str, Training]) -> None:
    """Raise what a worker found out before this process did: nothing may be written any more.

    Raises:
        LeaseLostError: another process has taken a lease that this call holds.
    """
    check_all_held()
    for future in futures.values():
        error = future.exception()
        for cause in (error, *(getattr(error, "worker_failures", None) or {}).values()):
            cause = getattr(cause, "cause", cause)
            if isinstance(cause, LeaseLostError):
                raise cause


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
