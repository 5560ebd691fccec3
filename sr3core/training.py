"""Algorithm 1, one step at a time: no DDP, no Ray, no data format. The same step trains the regression baseline."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from sr3core.diffusion import denoising_loss, epsilon_from_output, q_sample, training_target
from sr3core.errors import ConfigError
from sr3core.hyperparameters import ModelConfig, ObjectiveConfig, OptimizerConfig
from sr3core.randomness import keyed_generator
from sr3core.regression import regress
from sr3core.resize import upsample_bicubic
from sr3core.schedules import sample_gamma, training_gammas
from sr3core.unet import UNet


@dataclass(frozen=True, slots=True)
class Batch:
    """One worker's part of a global batch."""

    low: Tensor
    """x: low-resolution images, (B, 3, h, w) float32 in [-1, 1]."""
    high: Tensor
    """y_0: targets, (B, 3, H, W) float32 in [-1, 1]."""
    positions: tuple[int, ...]
    """Each sample's place in the global batch; with seed and step it decides the sample's noise."""
    keys: tuple[str, ...] = ()
    """Each sample's key in its shard."""

    def to(self, device: str | torch.device) -> "Batch":
        """The same batch with its images on device."""
        move = {"device": device, "non_blocking": True}
        return Batch(self.low.to(**move), self.high.to(**move), self.positions, self.keys)

    def split(self, parts: int) -> list["Batch"]:
        """Cut into `parts` equal micro-batches for gradient accumulation."""
        size = len(self.positions) // parts
        return [
            Batch(
                self.low[i : i + size], self.high[i : i + size], self.positions[i : i + size], self.keys[i : i + size]
            )
            for i in range(0, len(self.positions), size)
        ]


@dataclass(slots=True)
class TrainState:
    """Everything that training changes, and nothing else: what a checkpoint holds."""

    model: UNet
    ema: AveragedModel | None
    optimizer: torch.optim.Optimizer
    step: int = 0
    """Optimiser steps done."""


@dataclass(frozen=True, slots=True)
class StepStatistics:
    """Of one step, still on the device, so that reading them is the caller's choice of when to wait."""

    loss: Tensor
    """Mean loss of this worker's samples, ()."""
    gradient_norm: Tensor
    """Global gradient norm before clipping, ()."""
    sample_losses: Tensor = field(repr=False)
    """(B,)."""


def create_state(
    model: ModelConfig, optimizer: OptimizerConfig, seed: int, device: str | torch.device = "cpu"
) -> TrainState:
    """Initialise network, average and optimiser; the same weights for the same seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = UNet(model.unet)
    # Convolutions of images are a third faster in this layout, on CPUs and on tensor cores.
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    adam = torch.optim.Adam(network.parameters(), lr=optimizer.learning_rate, betas=optimizer.betas)
    return TrainState(model=network, ema=average_of(network, optimizer.ema_decay), optimizer=adam)


def average_of(network: nn.Module, decay: float) -> AveragedModel | None:
    """The exponential moving average of a network's weights; None for decay 0."""
    return AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(decay)) if decay else None


def learning_rate_at(config: OptimizerConfig, step: int) -> float:
    """The rate of the step that follows `step` finished ones: linear warm-up, then fixed (section 4)."""
    return config.learning_rate * min(1.0, (step + 1) / max(config.warmup_steps, 1))


def draw_noise(
    objective: ObjectiveConfig,
    gammas: np.ndarray,
    shape: Sequence[int],
    seed: int,
    step: int,
    positions: Sequence[int],
    device: str | torch.device = "cpu",
) -> tuple[Tensor, Tensor]:
    """Lines 3 and 4 of Algorithm 1: one gamma ~ p(gamma) and one epsilon ~ N(0, I) a sample.

    A sample's draws depend on (seed, step, position in the global batch) alone, so that the number of workers does not
    change them.

    Returns:
        gamma (B,) float64 in [gamma_T, 1] and epsilon of shape (B, C, H, W) float32.
    """
    generators = [keyed_generator(seed, "noise", step, position) for position in positions]
    uniform = torch.stack([torch.rand(2, generator=generator, dtype=torch.float64) for generator in generators]).numpy()
    gamma = sample_gamma(gammas, uniform[:, 0], uniform[:, 1], objective.gamma_uniform_in)
    epsilon = torch.stack([torch.randn(tuple(shape[1:]), generator=generator) for generator in generators])
    return torch.as_tensor(gamma, device=device), epsilon.to(device)


class Trainer:
    """Algorithm 1 for one model configuration: what stays the same from step to step.

    Args:
        model: what is trained.
        optimizer: how.
        seed: of noise and noise levels.
    """

    def __init__(self, model: ModelConfig, optimizer: OptimizerConfig, seed: int) -> None:
        self.model, self.optimizer, self.seed = model, optimizer, seed
        self._gammas = training_gammas(model.noise_schedule)

    def losses(
        self, forward: Callable[..., Tensor], batch: Batch, step: int, purpose_seed: int | None = None
    ) -> Tensor:
        """Loss of each sample at `step`: Equation (6), or squared error for regression; (B,) float32.

        Args:
            forward: the network, or its DDP wrapper.
            batch: on the network's device.
            step: which step's noise to draw.
            purpose_seed: another seed for the noise, for held-out losses; the trainer's by default.
        """
        x_up = upsample_bicubic(batch.low, self.model.high_size)
        if self.model.kind == "regression":
            return denoising_loss(regress(forward, x_up), batch.high, 2)  # type: ignore[arg-type]
        objective = self.model.objective
        seed = self.seed if purpose_seed is None else purpose_seed
        gamma, epsilon = draw_noise(
            objective, self._gammas, batch.high.shape, seed, step, batch.positions, batch.high.device
        )
        y_t = q_sample(batch.high, gamma, epsilon)
        output = forward(x_up, y_t, gamma)
        return denoising_loss(output, training_target(objective.target, batch.high, gamma, epsilon), objective.norm)

    def step(self, state: TrainState, forward: Callable[..., Tensor], micro_batches: Sequence[Batch]) -> StepStatistics:
        """Line 5 of Algorithm 1: accumulate gradients over equal micro-batches, clip, step, average the weights."""
        for group in state.optimizer.param_groups:
            group["lr"] = learning_rate_at(self.optimizer, state.step)
        state.optimizer.zero_grad(set_to_none=True)
        sample_losses = []
        for batch in micro_batches:
            losses = self.losses(forward, batch, state.step)
            (losses.mean() / len(micro_batches)).backward()
            sample_losses.append(losses.detach())
        limit = self.optimizer.gradient_clip or float("inf")
        norm = nn.utils.clip_grad_norm_(state.model.parameters(), limit)
        state.optimizer.step()
        if state.ema is not None:
            state.ema.update_parameters(state.model)
        state.step += 1
        all_losses = torch.cat(sample_losses)
        return StepStatistics(all_losses.mean(), norm, all_losses)


def as_denoiser(
    model: ModelConfig, network: nn.Module, guidance: float = 0.0
) -> Callable[[Tensor | None, Tensor, Tensor], Tensor]:
    """Wrap a network, whatever it was trained to predict, as the f of Algorithm 2, which estimates epsilon.

    Raises:
        ConfigError: guidance is not 0, but the model knows no classes to be guided by.
    """
    if guidance:
        raise ConfigError(f"guidance: {guidance:g} needs a model of classes, and this one has none; set it to 0")

    def denoise(x_up: Tensor | None, y_t: Tensor, gamma: Tensor) -> Tensor:
        return epsilon_from_output(model.objective.target, network(x_up, y_t, gamma), y_t, gamma)

    return denoise
