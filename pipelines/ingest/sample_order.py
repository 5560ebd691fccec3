"""The order of training samples, a pure function of (seed, step): lanes.

An epoch's order is a permutation of whole shards, cut into `num_lanes` parts of equal length (to within one sample). In
each epoch a lane walks one part, in blocks of `window` samples that are shuffled inside. Lane l walks part (l + epoch)
mod num_lanes, so that lanes drift apart by at most one sample however many epochs pass. A global batch takes
batch_size / num_lanes samples from every lane. Every lookup is O(1) in the step, so resuming needs only the step.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from sr3core.errors import ConfigError, DataError
from sr3core.randomness import derive_seed


@dataclass(frozen=True, slots=True)
class Place:
    """Where a sample comes from, and its position in the global batch."""

    position: int
    """Position in the global batch."""
    shard: int
    """Number of the shard in the manifest's split."""
    index: int
    """Number of the sample in the shard."""


@dataclass(frozen=True, slots=True)
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

    @property
    def num_samples(self) -> int:
        """Samples in an epoch."""
        return sum(self.shard_sizes)

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
        per_lane = self.batch_size // self.num_lanes
        return [
            Place(lane * per_lane + i, *self.sample(lane, step * per_lane + i))
            for lane in self.lanes_of(rank, world_size)
            for i in range(per_lane)
        ]

    def sample(self, lane: int, count: int) -> tuple[int, int]:
        """(shard, index) of the sample that a lane yields after `count` samples, counted over all epochs."""
        epoch = self._epoch_at(lane, count)
        part = (lane + epoch) % self.num_lanes
        offset = count - self._walked(lane, epoch)
        length = self._part_start(part + 1) - self._part_start(part)
        block = offset // self.window
        size = min(self.window, length - block * self.window)
        shuffled = _permutation(self.seed, f"window/{epoch}/{part}/{block}", size)[offset % self.window]
        return self._locate(epoch, self._part_start(part) + block * self.window + int(shuffled))

    def _part_start(self, part: int) -> int:
        return part * self.num_samples // self.num_lanes

    def _walked(self, lane: int, epoch: int) -> int:
        """Samples that a lane has walked before `epoch`: whole turns, and the parts of the current turn."""
        turns, rest = divmod(epoch, self.num_lanes)
        wraps, part = divmod(lane + rest, self.num_lanes)
        return (turns + wraps) * self.num_samples + self._part_start(part) - self._part_start(lane)

    def _epoch_at(self, lane: int, count: int) -> int:
        epoch = count * self.num_lanes // self.num_samples  # correct to within one: parts differ by at most one sample
        while self._walked(lane, epoch) > count:
            epoch -= 1
        while self._walked(lane, epoch + 1) <= count:
            epoch += 1
        return epoch

    def _locate(self, epoch: int, position: int) -> tuple[int, int]:
        order, starts = _shard_order(self.shard_sizes, self.seed, epoch)
        slot = int(np.searchsorted(starts, position, side="right")) - 1
        return int(order[slot]), position - int(starts[slot])


@lru_cache(maxsize=4)
def _shard_order(sizes: tuple[int, ...], seed: int, epoch: int) -> tuple[np.ndarray, np.ndarray]:
    """An epoch's permutation of the shards that are not empty, and the position at which each of them begins."""
    filled = np.flatnonzero(np.array(sizes))
    order = filled[_permutation(seed, f"shards/{epoch}", len(filled))]
    return order, np.concatenate([[0], np.cumsum(np.array(sizes)[order])[:-1]])


@lru_cache(maxsize=1024)
def _permutation(seed: int, purpose: str, size: int) -> np.ndarray:
    return np.random.Generator(np.random.Philox(derive_seed(seed, purpose))).permutation(size)
