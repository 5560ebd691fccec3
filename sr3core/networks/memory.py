"""The memory that a training step needs on a GPU, counted on the meta device before any GPU is there."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from sr3core.hyperparameters import ModelConfig, Precision
from sr3core.networks.unet import UNet, UNetBlock, num_parameters, zero_inputs
from sr3core.sizes import num_pixels, sides_of

_FLOAT32 = 4
_WORKSPACE_BYTES = 2 << 30
"""CUDA's context, the kernels' own workspaces, and what the allocator cannot use for being in pieces."""
_IMAGES_OF_A_LOSS = 16
"""Images of float32 that the loss takes for each image: y_0, x_up, the noise and what makes it, y_t, the target."""
_COPIES_OF_X_UP = 2
"""Of crops, the inputs that are enlarged whole: x_up, and at most as much again in between."""
_MAPS_OF_A_NORM = 4
"""Float32 copies of a feature map that a normalisation's backward pass holds at once."""


@dataclass(frozen=True, slots=True)
class MemoryBudget:
    """Bytes that one worker's training step needs on its GPU at its peak, uncompiled."""

    weights: int
    """The weights, in float32."""
    average: int
    """Their moving average."""
    moments: int
    """Adam's two moments."""
    gradients: int
    """The gradients, which DDP averages in place."""
    rounded: int
    """The weights in bfloat16, which autocast keeps for the backward pass."""
    saved: int
    """Activations that the forward pass of a micro-batch keeps for the backward pass."""
    images: int
    """A worker's images, and a micro-batch's noise and targets."""
    workspace: int
    """What operations need while they run."""

    @property
    def state(self) -> int:
        """What does not depend on the images: the weights, and all that is kept for each of them."""
        return self.weights + self.average + self.moments + self.gradients + self.rounded

    @property
    def total(self) -> int:
        """The sum of all parts."""
        return sum(getattr(self, part.name) for part in fields(self))


def training_memory(
    model: ModelConfig,
    precision: Precision,
    num_images: int,
    num_micro_batches: int = 1,
    averages: bool = True,
    recomputes: bool = False,
) -> MemoryBudget:
    """Count the memory of a training step; takes about a second for a network of Table A.1 and allocates nothing.

    Args:
        model: the stage's model.
        precision: of the training; bfloat16 halves the activations.
        num_images: a worker's share of a global batch.
        num_micro_batches: parts that it is computed in.
        averages: whether an average of the weights is kept.
        recomputes: whether a block's activations are computed again in the backward pass.
    """
    with torch.device("meta"):
        network = UNet(model.unet)
    bytes_of_weights = _FLOAT32 * num_parameters(network)
    saved = saved_activations(network)
    at_once = -(-num_images // num_micro_batches)
    share = 2 if precision == "bfloat16" else 1
    pixels = model.unet.image_channels * num_pixels(model.unet.image_size) * _FLOAT32
    enlarged = 0 if model.crop_size is None else model.unet.image_channels * num_pixels(model.high_size) * _FLOAT32
    return MemoryBudget(
        weights=bytes_of_weights,
        average=bytes_of_weights if averages else 0,
        moments=2 * bytes_of_weights,
        gradients=bytes_of_weights,
        rounded=bytes_of_weights // 2 if share == 2 else 0,
        saved=at_once * (saved.recomputed // share if recomputes else saved.of_blocks // share)
        + at_once * saved.of_ends,
        images=(num_images + at_once * _IMAGES_OF_A_LOSS) * pixels + at_once * _COPIES_OF_X_UP * enlarged,
        workspace=_WORKSPACE_BYTES + at_once * _MAPS_OF_A_NORM * saved.largest_map,
    )


@dataclass(frozen=True, slots=True)
class SavedActivations:
    """Bytes of float32 that the forward pass of one image keeps for the backward pass."""

    of_blocks: int
    """In the blocks."""
    of_ends: int
    """In the first and the output layer, which are float32 in any precision."""
    recomputed: int
    """In the blocks, if each keeps its inputs alone and the largest one is being computed again."""
    largest_map: int
    """The largest feature map."""


def saved_activations(network: UNet) -> SavedActivations:
    """Count what autograd saves of one image at the training size; the network is on the meta device.

    It is up to a tenth too much: there, convolutions give NCHW, of which a 1x1 convolution saves a copy.
    """
    config = network.config
    with torch.device("meta"):
        condition, image = zero_inputs(config, sides_of(config.image_size))
    classes = None if config.num_classes is None else torch.zeros(1, dtype=torch.long, device="meta")
    with _Saved(network).watch() as saved:
        network(condition, image, torch.ones(1, device="meta"), classes)
    blocks = list(saved.within.values())
    everything = {storage: size for block in blocks for storage, size in block.items()}
    inputs = {storage: size for kept in saved.inputs.values() for storage, size in kept.items()}
    largest = max(sum(size for storage, size in block.items() if storage not in inputs) for block in blocks)
    return SavedActivations(
        of_blocks=sum(everything.values()),
        of_ends=sum(size for storage, size in saved.outside.items() if storage not in everything),
        recomputed=sum(inputs.values()) + largest,
        largest_map=max(max(block.values()) for block in blocks),
    )


class _Saved:
    """Collects the storages that autograd saves, by the block that is computing: storage -> bytes."""

    def __init__(self, network: UNet) -> None:
        self._network = network
        self._weights = {_storage(weight)[0] for weight in network.parameters()}
        self._block: nn.Module | None = None
        self.outside: dict[int, int] = {}
        self.within: dict[nn.Module, dict[int, int]] = {}
        self.inputs: dict[nn.Module, dict[int, int]] = {}
        self._alive: list[Tensor] = []  # so that no storage's address is used again

    @contextmanager
    def watch(self) -> "Generator[_Saved]":
        """Collect what is saved in this context."""
        blocks = [module for module in self._network.modules() if isinstance(module, UNetBlock)]
        hooks = [block.register_forward_pre_hook(self._enter) for block in blocks]
        hooks += [block.register_forward_hook(self._leave) for block in blocks]
        try:
            with torch.autograd.graph.saved_tensors_hooks(self._save, lambda tensor: tensor):
                yield self
        finally:
            for hook in hooks:
                hook.remove()

    def _enter(self, block: nn.Module, inputs: tuple[Tensor | None, ...]) -> None:
        self._block = block
        self.within[block] = {}
        self.inputs[block] = dict(_storage(value) for value in inputs if value is not None)

    def _leave(self, block: nn.Module, inputs: object, output: object) -> None:
        self._block = None

    def _save(self, tensor: Tensor) -> Tensor:
        storage, size = _storage(tensor)
        if storage not in self._weights:
            self._alive.append(tensor)
            (self.outside if self._block is None else self.within[self._block])[storage] = size
        return tensor


def _storage(tensor: Tensor) -> tuple[int, int]:
    storage = tensor.untyped_storage()
    return storage._cdata, storage.nbytes()  # pyright: ignore[reportPrivateUsage]
