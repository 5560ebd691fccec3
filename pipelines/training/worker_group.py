"""A stage's workers as one of them sees them: the only place that knows ranks."""

import logging
import platform
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook
from torch.nn.parallel import DistributedDataParallel

from pipelines.runtime.allocator import keep_freed_memory
from pipelines.settings.train import TrainConfig
from pipelines.training.resources import describe_memory, memory_of
from sr3core.errors import WorkerLostError
from sr3core.networks.execution import accelerate
from sr3core.networks.precision import set_gpu_arithmetic
from sr3core.networks.unet import UNet

NUM_BUCKETS = 8
"""Parts in which gradients are averaged while the backward pass computes the rest. torch.compile cuts the network at
each: at DDP's default of 25 MB, a network of 625 million weights becomes 57 graphs."""
MIN_BUCKET = 25 * 2**20
"""Bytes; smaller parts are not worth a message."""
ANSWER_SECONDS = 10.0
"""How long a worker has to answer after an exchange has failed; those that failed with it are there at once."""
T = TypeVar("T")
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Team:
    """This worker's place among the workers of its stage."""

    rank: int
    world_size: int
    device: torch.device
    workers_on_node: int = 1
    """Workers of the stage on this machine, itself included."""
    loses_a_node: Callable[[], bool] = lambda: False
    """Whether a worker's node is about to be taken away, the same answer on every worker; all of them must ask."""
    hosts: tuple[str, ...] = ()
    """Name of each worker's machine; empty if unknown."""
    messages: dist.ProcessGroup | None = None
    """Group of all workers for what their hosts tell each other, so that no GPU waits for it; None for the default."""
    patience: float = 600.0
    """How long to wait for a worker, in seconds."""

    def wrap(self, network: UNet, config: TrainConfig) -> nn.Module:
        """The network as the training step calls it: under autocast, with gradients averaged over the workers."""
        if config.placement.recompute_activations:
            network.recompute_activations()
        module = accelerate(network, config.precision, "default" if config.placement.compiles else None)
        if self.world_size == 1:
            return module
        bucket = max(MIN_BUCKET, sum(weight.nbytes for weight in network.parameters()) / NUM_BUCKETS)
        wrapped = DistributedDataParallel(module, gradient_as_bucket_view=True, bucket_cap_mb=bucket / 2**20)
        if config.all_reduce == "bfloat16":
            wrapped.register_comm_hook(None, bf16_compress_hook)
        return wrapped

    def no_sync(self, forward: nn.Module) -> Callable[[], AbstractContextManager[object]]:
        """The context in which a backward pass through what `wrap` returned does not average gradients over workers."""
        return forward.no_sync if isinstance(forward, DistributedDataParallel) else nullcontext

    def mean(self, values: Tensor) -> Tensor:
        """The workers' mean of a tensor, on all of them."""
        values = values.to(self.device)  # NCCL requires it there
        if self.world_size > 1:
            dist.all_reduce(values)
        return values.cpu() / self.world_size

    def share(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite tensors, of the same shapes and layouts on all workers, with worker 0's."""
        if self.world_size > 1:
            for tensor in tensors:
                dist.broadcast(tensor, src=0)

    def same(self, value: Any) -> Any:
        """Worker 0's value, on all of them.

        Raises:
            WorkerLostError: a worker did not ask for it in time.
        """
        if self.world_size == 1:
            return value
        self._meet(self.patience)
        box = [value]
        dist.broadcast_object_list(box, src=0, group=self.messages)
        return box[0]

    def gather(self, value: T) -> list[T]:
        """Every worker's value, by rank, on all of them."""
        values: list[Any] = [value] * self.world_size
        if self.world_size > 1:
            dist.all_gather_object(values, value, group=self.messages)
        return values

    @contextmanager
    def naming_missing(self) -> Iterator[None]:
        """Context in which a failed exchange between the workers names those that did not take part.

        Raises:
            WorkerLostError: instead of the process group's own error, which names nobody.
        """
        try:
            yield
        except RuntimeError as error:
            if self.world_size > 1 and ("gloo" in str(error).lower() or isinstance(error, dist.DistError)):
                self._meet(ANSWER_SECONDS)
            raise

    def host_of(self, rank: int) -> str:
        """` on HOST` for messages about a worker; empty if unknown."""
        return f" on {self.hosts[rank]}" if self.hosts else ""

    def _meet(self, seconds: float) -> None:
        """Wait until all workers are here."""
        try:
            dist.monitored_barrier(self.messages, timedelta(seconds=seconds), wait_all_ranks=True)
        except RuntimeError as error:
            raise WorkerLostError(self._describe_missing(str(error), seconds)) from error

    def _describe_missing(self, barrier_error: str, seconds: float) -> str:
        found = re.search(r"[Rr]anks? ([\d, ]+?) failed to pass monitoredBarrier", barrier_error)
        if found is None:  # worker 0 alone knows who is missing; for the others it is worker 0 that does not answer
            return f"worker 0{self.host_of(0)} did not answer, or has missed another worker; its log says which"
        missing = [f"{rank}{self.host_of(int(rank))}" for rank in re.findall(r"\d+", found[1])]
        return (
            f"of {self.world_size} workers, these did not answer for {seconds:g} s: {', '.join(missing)}; the stage"
            " restarts from its newest checkpoint. If that is too short for this storage or network, raise"
            " placement.patience_seconds"
        )


def join_team(config: TrainConfig) -> Team:
    """This worker's rank, the number of workers and the device, from Ray Train; sets up the process."""
    import ray.train
    import ray.train.torch

    set_up_process(config)
    context = ray.train.get_context()
    alone = context.get_world_size() == 1
    patience = config.placement.patience_seconds
    team = Team(
        rank=context.get_world_rank(),
        world_size=context.get_world_size(),
        device=ray.train.torch.get_device(),
        workers_on_node=context.get_local_world_size(),
        loses_a_node=lambda: ray.train.get_preemption_info() is not None,
        messages=None if alone else _group_of_hosts(patience),
        patience=patience,
    )
    team = replace(team, hosts=tuple(team.gather(platform.node())))
    if team.rank == 0:
        warn_of_device(config, team.device)
    return team


def _group_of_hosts(patience: float) -> dist.ProcessGroup:
    group = dist.new_group(timeout=timedelta(seconds=patience), backend="gloo")
    assert isinstance(group, dist.ProcessGroup), "this worker is in it"
    return group


def warn_of_device(config: TrainConfig, device: torch.device) -> None:
    """Warn where a stage's memory or arithmetic does not suit the device that it is to train on."""
    if device.type == "cuda":
        gigabytes = torch.cuda.get_device_properties(device).total_memory / 1e9
        if memory_of(config).total > gigabytes * 1e9:
            log.warning("%s: %s", config.name, describe_memory(config, round(gigabytes, 1)))
    elif config.precision == "bfloat16" and not computes_bfloat16():
        log.warning(
            "%s: this processor has no arithmetic in bfloat16, which is emulated, many times slower than float32; set"
            " precision float32",
            config.name,
        )


def computes_bfloat16() -> bool:
    """Whether this CPU multiplies in bfloat16 (AVX-512 BF16, AMX, or Arm's)."""
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def set_up_process(config: TrainConfig) -> None:
    """Set a worker's number of threads, its allocator and its GPU's arithmetic."""
    keep_freed_memory()
    deterministic = config.placement.deterministic
    set_gpu_arithmetic(config.precision, tunes=True, deterministic=deterministic)
    torch.set_num_threads(max(1, int(config.placement.cpus_per_worker)))
