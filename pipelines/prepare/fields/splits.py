"""Which samples are held out: whole blocks of time, or single samples by their names."""

from collections.abc import Sequence

import numpy as np

from pipelines.settings.prepare import PrepareConfig
from pipelines.settings.stages import Split
from pipelines.stores.store import Times
from sr3core.errors import ConfigError, DataError
from sr3core.randomness import derive_seed

FEWEST_BLOCKS = 3


def split_samples(config: PrepareConfig, names: Sequence[str], times: Times | None) -> list[Split | None]:
    """The split of each sample; None for those that are left out since they are too near to a held-out block.

    A series is split by whole blocks, since neighbouring times are alike: a model is not to be measured on what it has
    all but seen. Blocks, or names, are sorted by a hash of (seed, block): the first are for testing, the next for
    validation, at least one each, the rest for training.

    Raises:
        ConfigError: how to split a series is not said, or it has no times.
        DataError: there are too few blocks.
    """
    if config.split_by == "time":
        return _by_time(config, times)
    if times is not None and len(names) > 1 and config.split_by == "auto":
        raise ConfigError(
            "split_by: the samples are a series, and its neighbours are alike: hold out whole blocks of time with"
            " `--split-by time --blocks 30d --gap 2d`, or say `--split-by name` if they are independent"
        )
    groups = _dealt(config, list(names))
    return [groups[name] for name in names]


def _by_time(config: PrepareConfig, times: Times | None) -> list[Split | None]:
    if times is None:
        raise ConfigError(f"split_by: {config.source} has no times along its first dimension; use `--split-by name`")
    numbers = times.seconds // config.block_seconds
    blocks = sorted(set(numbers.tolist()))
    if len(blocks) < FEWEST_BLOCKS:
        raise DataError(
            f"blocks: {times.labels[0]} to {times.labels[-1]} are {len(blocks)} blocks of {config.blocks}, and"
            f" {FEWEST_BLOCKS} at least are needed to hold some out; use shorter --blocks"
        )
    groups = _dealt(config, [str(block) for block in blocks])
    found: list[Split] = [groups[str(number)] for number in numbers.tolist()]
    held_out = times.seconds[np.array([split != "train" for split in found])]
    near = _nearest(times.seconds, held_out) <= config.gap_seconds
    return [None if split == "train" and is_near else split for split, is_near in zip(found, near, strict=True)]


def _nearest(times: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Seconds from each time, (N,), to the nearest of others."""
    if not others.size:
        return np.full(len(times), 2**62)
    known = np.sort(others)
    after = np.searchsorted(known, times).clip(max=len(known) - 1)
    before = (after - 1).clip(min=0)
    return np.minimum(np.abs(times - known[after]), np.abs(times - known[before]))


def _dealt(config: PrepareConfig, groups: list[str]) -> dict[str, Split]:
    """The split of each group, by their hashes."""
    ranked = sorted(groups, key=lambda group: derive_seed(config.seed, "fields split", group))
    num_test, num_validation = (
        max(1, round(len(groups) * share)) if share else 0
        for share in (config.test_fraction, config.validation_fraction)
    )
    if num_test + num_validation >= len(groups):
        raise DataError(
            f"{len(groups)} samples or blocks are too few to hold out {num_test} for testing and {num_validation} for"
            " validation; lower --validation-fraction or --test-fraction, or use shorter --blocks"
        )
    found: dict[str, Split] = dict.fromkeys(groups, "train")
    for group in ranked[:num_test]:
        found[group] = "test"
    for group in ranked[num_test : num_test + num_validation]:
        found[group] = "validation"
    return found
