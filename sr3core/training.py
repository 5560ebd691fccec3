"""Algorithm 1, one step at a time, without DDP, Ray or a data format. The regression baseline uses the same step."""

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from sr3core.batch import Batch
from sr3core.diffusion.equations import denoising_loss, epsilon_from_output, q_sample, training_target
from sr3core.diffusion.learned_variance import bound_term, split_variance
from sr3core.diffusion.noise import add_input_noise, window_noise
from sr3core.diffusion.residual import residual_of
from sr3core.diffusion.schedules import sample_gamma, step_of, training_gammas
from sr3core.hyperparameters import ModelConfig, ObjectiveConfig, OptimizerConfig
from sr3core.images.crops import Corner, enlarge
from sr3core.networks.layers import Conv1x1
from sr3core.networks.unet import UNet
from sr3core.randomness import derive_seed, uniform
from sr3core.regression import check_mean, condition, regress, with_static
from sr3core.sizes import size_of
from sr3core.transfer import send
from sr3core.update_rules import average_decay, is_spike, learning_rate_at, next_typical_norm, update_average


@dataclass(slots=True)
class TrainState:
    """Everything that training changes, and nothing else; a checkpoint holds exactly this."""

    model: UNet
    ema: UNet | None
    """The same network with the exponential moving average of the weights; None if no average is kept."""
    optimizer: torch.optim.Optimizer
    step: int = 0
    """Optimiser steps done."""
    typical_norm: Tensor | None = None
    """Geometric average of recent gradient norms, () on the device; spikes are detected relative to it."""


@dataclass(frozen=True, slots=True)
class SampleLosses:
    """Per-sample losses of a batch."""

    values: Tensor
    """(B,) float32."""
    steps: np.ndarray | None
    """The step t in 1..T of each sample's noise level, (B,); None for regression."""


@dataclass(frozen=True, slots=True)
class StepStatistics:
    """Statistics of one step. They stay on the device, so the caller decides when to wait for them."""

    loss: Tensor
    """(). Its mean over the workers is the mean loss of the global batch."""
    gradient_norm: Tensor
    """Global gradient norm before clipping, ()."""
    sample_losses: Tensor = field(repr=False)
    """Per-sample losses, (B,)."""
    is_bad: Tensor
    """Whether the update was skipped because its gradient was not finite or a spike; () bool, equal on all workers."""


def create_state(
    model: ModelConfig, optimizer: OptimizerConfig, seed: int, device: str | torch.device = "cpu"
) -> TrainState:
    """Initialise network, average and optimiser. The same seed gives the same weights."""
    with torch.random.fork_rng(devices=[]):  # pyright: ignore[reportUnknownMemberType]
        torch.manual_seed(seed)  # pyright: ignore[reportUnknownMemberType]
        network = UNet(model.unet)
    # Convolutions of images are a third faster in this memory layout, on CPUs and on tensor cores.
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    for layer in network.modules():
        if isinstance(layer, Conv1x1):
            layer.straighten()
    # Fused: one kernel, and the only Adam that can skip an update without a device-to-host sync (see Trainer.step).
    adam = torch.optim.Adam(
        network.parameters(), optimizer.learning_rate, optimizer.betas, optimizer.epsilon, fused=True
    )
    average = deepcopy(network).requires_grad_(False) if optimizer.ema_decay else None
    return TrainState(model=network, ema=average, optimizer=adam)


def draw_noise(
    objective: ObjectiveConfig,
    gammas: np.ndarray,
    shape: Sequence[int],
    seed: int,
    step: int,
    positions: Sequence[int],
    device: str | torch.device = "cpu",
    corners: Sequence[Corner] = (),
) -> tuple[Tensor, Tensor, np.ndarray]:
    """Lines 3 and 4 of Algorithm 1: one gamma ~ p(gamma) and one epsilon ~ N(0, I) per sample.

    A sample's draws depend on (seed, step, position in the global batch) alone, and thus not on the number of workers.
    The noise of crops, whose corners are given, is that of their places in the whole images.

    Returns:
        gamma (B,) float64 in [gamma_T, 1], epsilon (B, C, H, W) float32, and the step t in 1..T of each gamma,
        (B,) int64.
    """
    levels = np.array([[uniform(seed, part, step, at) for part in ("level", "within")] for at in positions])  # (B, 2)
    gamma = sample_gamma(gammas, levels[:, 0], levels[:, 1], objective.gamma_uniform_in)
    seeds = [derive_seed(seed, "noise", step, position) for position in positions]
    epsilon = window_noise(seeds, 0, corners or [(0, 0)] * len(seeds), shape[1:], device)
    return send(torch.as_tensor(gamma), device), epsilon, step_of(gammas, gamma)


def hide_classes(
    classes: Tensor, num_classes: int, probability: float, seed: int, step: int, positions: Sequence[int]
) -> Tensor:
    """Replace classes with "no class" (num_classes) at random, for classifier-free guidance (Ho and Salimans, 2022).

    The choice depends on (seed, step, position in the global batch) alone, like the noise.
    """
    draws = [uniform(seed, "class-dropout", step, position) for position in positions]
    hidden = send(torch.tensor([draw < probability for draw in draws]), classes.device)
    return torch.where(hidden, num_classes, classes)


class Trainer:
    """Algorithm 1 for one model configuration; holds what stays constant from step to step.

    Args:
        model: the model to train.
        optimizer: the optimiser's settings.
        seed: seed of the noise and the noise levels.
        mean: the frozen regression that the chain starts from, on the network's device; None without one.

    Raises:
        ConfigError: objective.residual needs such a regression, or excludes it.
    """

    def __init__(
        self, model: ModelConfig, optimizer: OptimizerConfig, seed: int, mean: Callable[..., Tensor] | None = None
    ) -> None:
        check_mean(model, mean)
        model.check_channel_weights()
        self.model, self.optimizer, self.seed, self._mean = model, optimizer, seed, mean
        self._gammas = training_gammas(model.noise_schedule)

    def losses(
        self, forward: Callable[..., Tensor], batch: Batch, step: int, purpose_seed: int | None = None
    ) -> SampleLosses:
        """Loss of each sample at `step`: Equation (6), or squared error for regression.

        A learned variance adds the bound: L_simple + lambda L_vlb, Equation (16) of Nichol and Dhariwal (2021), in bits
        per value. L_vlb is a sum over T steps, of which one is drawn; hence the factor T.

        Args:
            forward: the network, or its DDP wrapper.
            batch: the samples, on the network's device.
            step: the training step, which selects the noise.
            purpose_seed: seed of the noise for held-out losses; the trainer's seed by default.
        """
        seed = self.seed if purpose_seed is None else purpose_seed
        low, told = self._input(batch, seed, step)
        x_up = None if low is None else self._condition(batch, low)
        channels, weights = self.model.unet.image_channels, self._weights(batch)
        if self.model.kind == "regression":
            output = regress(forward, x_up, channels)  # type: ignore[arg-type]
            return SampleLosses(denoising_loss(output, batch.high, 2, weights), None)
        x_up = None if x_up is None else condition(self.model, x_up, self._mean)
        objective = self.model.objective
        shape, device = batch.high.shape, batch.high.device
        gamma, epsilon, t = draw_noise(
            objective, self._gammas, shape, seed, step, batch.positions, device, batch.corners
        )
        residual = None if x_up is None else residual_of(self.model, x_up)
        y_0 = batch.high if residual is None else residual.of(batch.high)
        y_t = q_sample(y_0, gamma, epsilon)
        output = forward(x_up, y_t, gamma, self._classes(batch, seed, step), *told)
        prediction, fraction = split_variance(output.float(), channels)
        target = training_target(objective.target, y_0, gamma, epsilon)
        losses = denoising_loss(prediction, target, objective.norm, weights)
        if fraction is not None:
            # As in Improved DDPM, the mean learns from L_simple alone: L_vlb's gradient for it is much noisier.
            epsilon_hat = epsilon_from_output(objective.target, prediction.detach(), y_t, gamma)
            previous = send(torch.as_tensor(self._gammas[t - 1]), gamma.device)
            bound = bound_term(batch.high, y_t, previous, gamma, epsilon_hat, fraction)
            losses = losses + objective.bound_weight * (len(self._gammas) - 1) * bound
        return SampleLosses(losses, t)

    def _condition(self, batch: Batch, low: Tensor) -> Tensor:
        """x_up with the static maps, (B, C + K, H, W); of crops, their windows."""
        x_up = enlarge(low, self.model.high_size, batch.corners, size_of(*batch.high.shape[-2:]))
        return with_static(x_up, batch.static)

    def _weights(self, batch: Batch) -> Tensor | None:
        """The weight of each value in the loss, (B or 1, 1 or C, H or 1, W or 1); None if all are 1."""
        of_channels = self.model.objective.channel_weights
        if not of_channels:
            return batch.weights
        shares = [weight * len(of_channels) / sum(of_channels) for weight in of_channels]
        weights = send(torch.tensor(shares, dtype=torch.float32).view(1, -1, 1, 1), batch.high.device)
        return weights if batch.weights is None else weights * batch.weights

    def _input(self, batch: Batch, seed: int, step: int) -> tuple[Tensor | None, tuple[Tensor, ...]]:
        """The low-resolution images with their noise, and its levels, (B,), for a network that is told."""
        largest = self.model.unet.input_noise
        if batch.low is None or not largest or self.model.kind == "regression":
            return batch.low, ()
        draws = [largest * uniform(seed, "input-noise level", step, position) for position in batch.positions]
        seeds = [derive_seed(seed, "input-noise", step, position) for position in batch.positions]
        levels = send(torch.tensor(draws, dtype=torch.float32), batch.low.device)
        return add_input_noise(batch.low, levels, seeds), (levels,)

    def _classes(self, batch: Batch, seed: int, step: int) -> Tensor | None:
        num_classes = self.model.unet.num_classes
        if num_classes is None:
            return None
        assert batch.classes is not None, "ingest ensures that there are classes"
        dropout = self.model.objective.class_dropout
        return hide_classes(batch.classes, num_classes, dropout, seed, step, batch.positions)

    def step(
        self,
        state: TrainState,
        forward: Callable[..., Tensor],
        micro_batches: Sequence[Batch],
        samples_per_worker: float | None = None,
        without_sync: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> StepStatistics:
        """Line 5 of Algorithm 1: accumulate gradients over micro-batches, clip, step, average the weights.

        An update whose gradient is not finite or is a spike is skipped on the device; the host never waits for that.

        Args:
            state: updated in place.
            forward: the network, or a wrapper that averages its gradients over the workers.
            micro_batches: this worker's samples.
            samples_per_worker: the global batch size divided by the number of workers. With it, the wrapper's average
                is the mean over the global batch even if the workers' shares differ in size. Default: the number of
                samples in micro_batches.
            without_sync: returns a context in which the wrapper does not average gradients. It is used for all
                micro-batches but the last, so that gradients are averaged once.
        """
        count = samples_per_worker or sum(len(batch.positions) for batch in micro_batches)
        for group in state.optimizer.param_groups:
            group["lr"] = learning_rate_at(self.optimizer, state.step)
        state.optimizer.zero_grad(set_to_none=True)
        sample_losses: list[Tensor] = []
        for index, batch in enumerate(micro_batches, 1):
            with nullcontext() if index == len(micro_batches) else without_sync():
                losses = self.losses(forward, batch, state.step).values
                (losses.sum() / count).backward()  # pyright: ignore[reportUnknownMemberType]
            sample_losses.append(losses.detach())
        norm, is_bad = self.update(state)
        all_losses = torch.cat(sample_losses)
        return StepStatistics(all_losses.sum() / count, norm, all_losses, is_bad)

    def update(self, state: TrainState) -> tuple[Tensor, Tensor]:
        """Apply the accumulated gradients; return their norm before clipping and whether the update was skipped."""
        weights = list(state.model.parameters())
        norm = nn.utils.get_total_norm([weight.grad for weight in weights if weight.grad is not None])
        if self.optimizer.gradient_clip is not None:
            nn.utils.clip_grads_with_norm_(weights, self.optimizer.gradient_clip, norm)
        typical = torch.full_like(norm, math.nan) if state.typical_norm is None else state.typical_norm.to(norm.device)
        is_bad = ~torch.isfinite(norm) | is_spike(norm, typical, self.optimizer.spike_factor)
        state.typical_norm = next_typical_norm(typical, norm, self.optimizer.spike_factor)
        state.optimizer.found_inf = is_bad.float()  # type: ignore[attr-defined]  # torch.amp.GradScaler's protocol
        state.optimizer.step()
        if state.ema is not None:
            update_average(state.ema, state.model, average_decay(self.optimizer.ema_decay, state.step))
        state.step += 1
        return norm, is_bad
