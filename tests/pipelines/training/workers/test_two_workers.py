"""What two workers exchange, in two real processes with torch's own process group, gloo."""

import logging
import os
import time
import warnings
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor

from pipelines.runs.stage_run import StageRun
from pipelines.settings.presets import small_stage
from pipelines.settings.train import TrainConfig
from pipelines.training import worker_group
from pipelines.training.checkpoints import resume
from pipelines.training.worker_group import Team
from pipelines.training.workers import stragglers
from pipelines.training.workers.stragglers import INTERVALS, OwnTimes
from sr3core.batch import Batch
from sr3core.checkpoint import save_checkpoint, take_snapshot
from sr3core.config import override
from sr3core.errors import WorkerLostError
from sr3core.training import Trainer, TrainState, create_state

CPU = torch.device("cpu")
HOSTS = ("host-a", "host-b")


@dataclass
class Found:
    """What one worker saw."""

    resumed: dict[str, Tensor] = field(default_factory=dict)
    warned: list[str] = field(default_factory=list)
    gradients: dict[str, Tensor] = field(default_factory=dict)
    data_wait: float = 0.0
    logged: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)


def config() -> TrainConfig:
    return override(small_stage(8, 16, base_channels=8, num_steps=60, num_workers=2), batch_size=32)


def fresh() -> TrainState:
    return create_state(config().model, config().optimizer, config().seed)


def a_batch(rank: int) -> Batch:
    draw = torch.Generator().manual_seed(rank)
    low, high = (torch.rand(4, 3, size, size, generator=draw) for size in (8, 16))
    return Batch(low, high, tuple(range(4 * rank, 4 * rank + 4)))


def tensors_of(state: TrainState) -> dict[str, Tensor]:
    assert state.ema is not None
    assert state.typical_norm is not None
    moments = {
        f"{name}.{at}": value
        for at, entry in state.optimizer.state_dict()["state"].items()
        for name, value in entry.items()
    }
    average = {f"ema.{name}": value for name, value in state.ema.state_dict().items()}
    step = torch.tensor(state.step)
    return {**state.model.state_dict(), **average, **moments, "step": step, "typical": state.typical_norm}


def resumed(team: Team, folder: Path) -> dict[str, Tensor]:
    """The state after a resume, of which worker 1 could read nothing."""
    state = fresh()
    resume(StageRun(folder / ("run" if team.rank == 0 else "nothing"), config(), "data"), state, team)
    return tensors_of(state)


def gradients(team: Team) -> dict[str, Tensor]:
    """Of one backward pass, averaged over the workers."""
    state, wanted = fresh(), config()
    forward = team.wrap(state.model, wanted)
    losses = Trainer(wanted.model, wanted.optimizer, 0).losses(forward, a_batch(team.rank), 0)
    losses.values.mean().backward()
    return {name: weight.grad for name, weight in state.model.named_parameters()}  # type: ignore[misc]


def observe_pace(team: Team, found: Found) -> None:
    """Worker 1 needs five times as long, by a clock that is read."""
    ticks = iter(range(10_000))
    stragglers.time = type("Clock", (), {"perf_counter": lambda: next(ticks) * (5.0 if team.rank else 1.0)})  # type: ignore[assignment]
    handler = logging.Handler()
    handler.emit = lambda record: found.logged.append(record.getMessage())  # type: ignore[method-assign]
    stragglers.log.addHandler(handler)
    times = OwnTimes(team, "8-16")
    for _ in range(2 * INTERVALS):
        with times.waiting():
            pass
        times.timed(lambda: torch.zeros(()))()
        found.data_wait = times.compare(steps=1, seconds=20.0)


def lose_worker_1(rank: int, found: Found, over: Path) -> None:
    """Worker 1 does not come: to what is asked at every beat, then to the exchange of gradients."""
    one, other = (
        Team(rank, 2, CPU, hosts=HOSTS, messages=a_group(seconds=1), patience=1.0) for _ in ("beat", "exchange")
    )
    if rank == 1:
        while not over.exists():
            time.sleep(0.05)
        return
    worker_group.ANSWER_SECONDS = 0.5
    for team, exchange in ((one, lambda: one.same("anything")), (other, lambda: dist.all_reduce(torch.ones(3)))):
        try:
            with team.naming_missing():
                exchange()
        except WorkerLostError as error:
            found.lost.append(str(error))
    over.touch()


def a_group(seconds: float) -> Any:
    """Both processes must call it."""
    return dist.new_group(backend="gloo", timeout=timedelta(seconds=seconds))


def work(rank: int, folder: Path) -> None:
    """What each process does."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2, timeout=timedelta(seconds=20)
    )
    team = Team(rank, 2, CPU, hosts=HOSTS, messages=a_group(seconds=20), patience=20.0)
    found = Found(resumed=resumed(team, folder))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found.gradients = gradients(team)
    found.warned = [str(warning.message) for warning in caught]
    observe_pace(team, found)
    lose_worker_1(rank, found, folder / "over")
    torch.save(found.__dict__, folder / f"found-{rank}.pt")
    os._exit(0)  # the group, which lost a worker, cannot be left in order


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[Found, Found]:
    folder = tmp_path_factory.mktemp("two-workers")
    state = fresh()
    Trainer(config().model, config().optimizer, 0).step(state, state.model, [a_batch(5)])
    save_checkpoint(folder / "run" / "checkpoints", take_snapshot(state), {})
    mp.spawn(work, (folder,), nprocs=2)  # pyright: ignore[reportPrivateImportUsage]
    one, other = (Found(**torch.load(folder / f"found-{rank}.pt")) for rank in (0, 1))
    assert one.resumed["step"] == 1
    assert all(torch.equal(one.resumed[name], value) for name, value in tensors_of(state).items())
    return one, other


def test_worker_0_reads_the_checkpoint_and_the_others_receive_it(found: tuple[Found, Found]) -> None:
    one, other = found
    assert one.resumed.keys() == other.resumed.keys()
    for name, value in one.resumed.items():
        assert torch.equal(value, other.resumed[name]), name


def test_gradients_are_averaged_without_a_warning(found: tuple[Found, Found]) -> None:
    one, other = found
    assert one.warned == other.warned == []
    state = fresh()
    trainer = Trainer(config().model, config().optimizer, 0)
    for rank in (0, 1):
        (trainer.losses(state.model, a_batch(rank), 0).values.mean() / 2).backward()
    for name, weight in state.model.named_parameters():
        assert torch.equal(one.gradients[name], other.gradients[name])
        torch.testing.assert_close(one.gradients[name], weight.grad, rtol=1e-4, atol=1e-7)


def test_the_worker_that_the_other_waits_for_is_named_once(found: tuple[Found, Found]) -> None:
    """Worker 1 waits 5 s for its data and computes 5 s, worker 0 one and one, in intervals of 20 s."""
    one, other = found
    assert one.data_wait == other.data_wait == 5.0 / 20.0
    (message,) = one.logged
    assert "wait for worker 1 on host-b: its own part of a step takes 10 s, 5 of them waiting for data" in message
    assert other.logged == []


def test_a_worker_that_does_not_answer_is_named(found: tuple[Found, Found]) -> None:
    (one, _) = found
    at_a_beat, in_a_step = one.lost
    assert "of 2 workers, these did not answer for 1 s: 1 on host-b; the stage restarts" in at_a_beat
    assert "of 2 workers, these did not answer for 0.5 s: 1 on host-b; the stage restarts" in in_a_step
