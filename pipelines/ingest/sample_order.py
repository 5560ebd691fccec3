"""The order of training samples, a pure function of (seed, step): lanes.

An epoch's order is a permutation of whole shards, cut into `num_lanes` parts of equal length (to within one sample). In
each epoch a lane walks one part, in blocks of at most `window` samples that are shuffled inside. Lane l walks part
(l + epoch) mod num_lanes, so that lanes drift apart by at most one sample however many epochs pass. A global batch
takes batch_size / num_lanes samples from every lane. The cost of a lookup grows neither with the step, so that resuming
needs only the step, nor with the number of shards, but for the permutation at the start of each epoch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np

from pipelines.settings.train import BlockBoundaries
from sr3core.errors import ConfigError, DataError
from sr3core.randomness import derive_seed


class Place(NamedTuple):
    """Where a sample comes from, and its position in the global batch."""

    position: int
    """Position in the global batch."""
    shard: int
    """Number of the shard in the manifest's split."""
    index: int
    """Number of the sample in the shard."""


class Block(NamedTuple):
    """Neighbouring samples of an epoch's order, within which a lane shuffles."""

    epoch: int
    """Epoch, from 0."""
    part: int
    """Part of the epoch's order, in 0..num_lanes - 1."""
    number: int
    """Number of the block in the part; with epoch and part it selects the permutation."""
    start: int
    """Position of its first sample in the epoch's order."""
    size: int
    """Samples in it."""


@dataclass(frozen=True)
class SampleOrder:
    """The order in which a training run sees the samples of its shards."""

    shard_sizes: tuple[int, ...]
    """Samples in each shard, in the manifest's order."""
    batch_size: int
    """Samples in a global batch."""
    num_lanes: int
    """Parts that an epoch is cut into; at most this many workers can share it."""
    window: int
    """Number of neighbouring samples within which a lane shuffles."""
    seed: int
    """Seed for the permutations of shards and windows."""
    boundaries: BlockBoundaries = "aligned"
    """Where a part is cut into blocks: after each `window` samples, "aligned" in all parts; or "staggered", the first
    block of part p being (p + 1) / num_lanes of a window, so that lanes begin new blocks, and new shards, in turn."""

    def __post_init__(self) -> None:
        if self.batch_size % self.num_lanes:
            raise ConfigError(
                f"batch_size: {self.batch_size} is not a multiple of num_lanes {self.num_lanes}, from each of which a"
                " batch takes the same number of samples"
            )
        if self.num_samples < self.num_lanes:
            raise DataError(
                f"{self.num_samples} training samples are too few for {self.num_lanes} lanes: prepare more images or"
                " lower num_lanes"
            )

    @cached_property
    def num_samples(self) -> int:
        """Samples in an epoch."""
        return sum(self.shard_sizes)

    @property
    def samples_per_lane(self) -> int:
        """Samples that a global batch takes from each lane."""
        return self.batch_size // self.num_lanes

    def lanes_of(self, rank: int, world_size: int) -> range:
        """The lanes that a worker serves: those with l mod world_size = rank.

        If world_size does not divide num_lanes, some workers serve one lane more than others.

            Raises:
                ConfigError: there are more workers than lanes.
        """
        if world_size > self.num_lanes:
            raise ConfigError(f"num_workers: {world_size} is more than num_lanes {self.num_lanes}; lower num_workers")
        return range(rank, self.num_lanes, world_size)

    def batch(self, step: int, rank: int = 0, world_size: int = 1) -> list[Place]:
        """The samples of a worker at a step, in order of their positions in the global batch."""
        lanes = np.array(self.lanes_of(rank, world_size))
        within = np.arange(self.samples_per_lane)
        counts = step * self.samples_per_lane + within
        shards, indices = self.samples(np.repeat(lanes, len(within)), np.tile(counts, len(lanes)))
        positions = (lanes[:, None] * self.samples_per_lane + within).ravel()  # (lanes, samples) -> (lanes samples,)
        return [Place(*row) for row in zip(positions.tolist(), shards.tolist(), indices.tolist(), strict=True)]

    def samples(self, lanes: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Shard and index of the sample that each lane yields after `count` samples, counted over all epochs; (N,)."""
        epochs = self._epoch_at(lanes, counts)
        parts = (lanes + epochs) % self.num_lanes
        offsets = counts - self._walked(lanes, epochs)
        positions = np.empty_like(offsets)
        for i, (epoch, part, offset) in enumerate(zip(epochs.tolist(), parts.tolist(), offsets.tolist(), strict=True)):
            block = self._block_at(epoch, part, offset)
            within = self._part_start(part) + offset - block.start
            positions[i] = block.start + self._shuffled(block)[within]
        shards, indices = np.empty_like(positions), np.empty_like(positions)
        for epoch in np.unique(epochs).tolist():  # at most two or three: lanes begin an epoch at nearly the same time
            chosen = epochs == epoch
            shards[chosen], indices[chosen] = self._locate(epoch, positions[chosen])
        return shards, indices

    def block(self, lane: int, count: int) -> tuple[Block, int]:
        """The block that a lane is in after `count` samples, and the count at which its next block begins."""
        where = np.array([lane]), np.array([count])
        epoch = int(self._epoch_at(*where)[0])
        part = (lane + epoch) % self.num_lanes
        walked = int(self._walked(where[0], np.array([epoch]))[0])
        block = self._block_at(epoch, part, count - walked)
        return block, walked + block.start + block.size - self._part_start(part)

    def shards_in(self, block: Block) -> list[int]:
        """Numbers of the shards that a block's samples come from, in the order in which they lie there."""
        order, starts = self._shard_order(block.epoch)
        first, last = np.searchsorted(starts, [block.start, block.start + block.size - 1], side="right") - 1
        return order[first : last + 1].tolist()

    def largest_block(self, lane: int, shard_bytes: np.ndarray) -> int:
        """Bytes of the shards that a lane's largest block in the first epoch reads from."""
        order, starts = self._shard_order(0)
        start, end = self._part_start(lane), self._part_start(lane + 1)
        cuts = np.array([start, *range(start + self._lead(lane), end, self.window), end])
        cuts = np.unique(np.minimum(cuts, end))
        first = np.searchsorted(starts, cuts[:-1], side="right") - 1
        last = np.searchsorted(starts, cuts[1:] - 1, side="right") - 1
        before = np.concatenate([[0], np.cumsum(shard_bytes[order])])
        return int((before[last + 1] - before[first]).max())

    def _lead(self, part: int) -> int:
        """Samples of a part's first block, where it is shorter than the window for the sake of its start."""
        return 0 if self.boundaries == "aligned" else (part + 1) * self.window // self.num_lanes

    def _part_start(self, part: int) -> int:
        return part * self.num_samples // self.num_lanes

    def _walked(self, lanes: np.ndarray, epochs: np.ndarray) -> np.ndarray:
        """Samples that lanes have walked before `epochs`: whole turns, and the parts of the current turn."""
        turns, rest = np.divmod(epochs, self.num_lanes)
        wraps, parts = np.divmod(lanes + rest, self.num_lanes)
        starts, own = (index * self.num_samples // self.num_lanes for index in (parts, lanes))
        return (turns + wraps) * self.num_samples + starts - own

    def _epoch_at(self, lanes: np.ndarray, counts: np.ndarray) -> np.ndarray:
        epochs = counts * self.num_lanes // self.num_samples  # correct to within one: parts differ by one sample
        while (late := self._walked(lanes, epochs) > counts).any():
            epochs = epochs - late
        while (early := self._walked(lanes, epochs + 1) <= counts).any():
            epochs = epochs + early
        return epochs

    def _block_at(self, epoch: int, part: int, offset: int) -> Block:
        start = self._part_start(part)
        length = self._part_start(part + 1) - start
        lead = self._lead(part)
        if offset < lead:
            return Block(epoch, part, 0, start, min(lead, length))
        blocks = (offset - lead) // self.window
        skipped = lead + blocks * self.window
        return Block(epoch, part, blocks + (lead > 0), start + skipped, min(self.window, length - skipped))

    def _locate(self, epoch: int, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        order, starts = self._shard_order(epoch)
        slots = np.searchsorted(starts, positions, side="right") - 1
        return order[slots], positions - starts[slots]

    def _shuffled(self, block: Block) -> np.ndarray:
        return self._permutations(block.epoch, block.part, block.number, block.size)

    @cached_property
    def _permutations(self) -> Callable[[int, int, int, int], np.ndarray]:
        @lru_cache(maxsize=2 * self.num_lanes)  # at the end of a block a lane reads ahead into the next
        def permute(epoch: int, part: int, number: int, size: int) -> np.ndarray:
            return _permutation(self.seed, f"window/{epoch}/{part}/{number}", size).astype(np.int32)

        return permute

    @cached_property
    def _shard_order(self) -> Callable[[int], tuple[np.ndarray, np.ndarray]]:
        sizes = np.array(self.shard_sizes)
        filled = np.flatnonzero(sizes)

        @lru_cache(maxsize=3)
        def arrange(epoch: int) -> tuple[np.ndarray, np.ndarray]:
            """An epoch's permutation of the shards that are not empty, and the position at which each begins."""
            order = filled[_permutation(self.seed, f"shards/{epoch}", len(filled))]
            return order, np.concatenate([[0], np.cumsum(sizes[order])[:-1]])

        return arrange


def _permutation(seed: int, purpose: str, size: int) -> np.ndarray:
    return np.random.Generator(np.random.Philox(derive_seed(seed, purpose))).permutation(size)
