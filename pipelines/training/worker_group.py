"""A stage's workers as one of them sees them: the only place that knows ranks."""

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from pipelines.runtime.allocator import keep_freed_memory
from pipelines.settings.train import TrainConfig
from pipelines.training.resources import describe_memory, memory_of
from sr3core.networks.execution import accelerate
from sr3core.networks.precision import set_gpu_arithmetic
from sr3core.networks.unet import UNet

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

    def wrap(self, network: UNet, config: TrainConfig) -> nn.Module:
        """The network as the training step calls it: under autocast, with gradients averaged over the workers."""
        if config.placement.recompute_activations:
            network.recompute_activations()
        module = accelerate(network, config.precision, "default" if config.placement.compile else None)
        if self.world_size == 1:
            return module
        return DistributedDataParallel(module, gradient_as_bucket_view=True)

    def no_sync(self, forward: nn.Module) -> Callable[[], AbstractContextManager[object]]:
        """The context in which a backward pass through what `wrap` returned does not average gradients over workers."""
        return forward.no_sync if isinstance(forward, DistributedDataParallel) else nullcontext

    def mean(self, values: Tensor) -> Tensor:
        """The workers' mean of a tensor, on all of them."""
        values = values.to(self.device)  # NCCL requires it there
        if self.world_size > 1:
            dist.all_reduce(values)
        return values.cpu() / self.world_size

    def same(self, value: Any) -> Any:
        """Worker 0's value, on all of them."""
        if self.world_size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]


def join_team(config: TrainConfig) -> Team:
    """This worker's rank, the number of workers and the device, from Ray Train; sets up the process."""
    import ray.train
    import ray.train.torch

    set_up_process(config)
    context = ray.train.get_context()
    team = Team(
        rank=context.get_world_rank(),
        world_size=context.get_world_size(),
        device=ray.train.torch.get_device(),
        workers_on_node=context.get_local_world_size(),
        loses_a_node=lambda: ray.train.get_preemption_info() is not None,
    )
    if team.rank == 0:
        warn_of_device(config, team.device)
    return team


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
