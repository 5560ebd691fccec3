"""Shards of random images, written without Ray and in a moment: for tests and benchmarks of what reads them."""

from pathlib import Path

import numpy as np

from pipelines.settings.prepare import PrepareConfig
from pipelines.settings.stages import parse_stages
from pipelines.shards.manifest import FORMAT_VERSION, Manifest, ShardEntry, ShardIndex, save_index, save_manifest
from pipelines.shards.records import encode_record, record_key
from pipelines.shards.tar_writer import ShardWriter
from sr3core.sizes import sides_of


def write_shards(
    data: Path,
    name: str,
    sizes: list[int],
    *,
    validation: int = 0,
    num_classes: int = 0,
    images: list[np.ndarray] | None = None,
) -> str:
    """Write a stage's training shards of these sizes, and one validation shard; returns the folder of the data.

    Args:
        data: the folder.
        name: of the stage, such as 16-64.
        sizes: samples in each training shard.
        validation: samples in the validation shard.
        num_classes: labels go around from 0; with 0 there are none.
        images: targets to take in turn, uint8 (H, W, 3); random noise by default.
    """
    (stage,) = parse_stages(name)
    height, width = sides_of(stage.high_size)
    generator = np.random.default_rng(height)
    shape = (height, width, 3)
    pictures = images or [generator.integers(0, 256, shape, dtype=np.uint8) for _ in range(max(sizes, default=1) + 1)]
    config = PrepareConfig(source="none", out=str(data), stages=(stage.name,))
    scale = height // sides_of(stage.low_size or stage.high_size)[0]
    encoded = []
    for picture in pictures:
        low = None if stage.low_size is None else picture[::scale, ::scale]
        encoded.append(encode_record(config, "any", picture, low, None, {"name": "synthetic"}))
    splits: dict[str, list[ShardEntry]] = {"train": [], "validation": [], "test": []}
    folder = data / stage.name
    planned = [("train", size) for size in sizes] + [("validation", validation)] * (validation > 0)
    count = 0
    for number, (split, size) in enumerate(planned):
        labels: list[int | None] = []
        tar = f"{split}-{number:06d}.tar"
        with ShardWriter(str(folder / tar)) as writer:
            for _ in range(size):
                label = count % num_classes if num_classes else None
                members = encoded[count % len(encoded)] | ({} if label is None else {"cls": str(label).encode()})
                writer.add(record_key(str(count), "synthetic"), members)
                labels.append(label)
                count += 1
            digest = writer.commit()
        keys, members = tuple(writer.keys), tuple(writer.members)
        blank = ("synthetic",) * size
        index = ShardIndex(tar, "0", "0", writer.num_bytes, digest, keys, members, blank, blank, tuple(labels))
        save_index(str(folder), index)
        splits[split].append(index.entry)
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        stage=stage,
        splits={split: tuple(entries) for split, entries in splits.items()},
        provenance={},
        fingerprint="synthetic",
        num_classes=num_classes,
        num_unlabelled=0 if num_classes else count,
    )
    save_manifest(str(folder), manifest)
    return str(data)
