"""A picture of random records, for looking at prepared data."""

import random

import numpy as np
from PIL import Image, ImageDraw

from pipelines.images.compact_png import encode_compact_png
from pipelines.shards.manifest import ShardEntry, load_index, load_manifest
from pipelines.shards.records import Record, read_record
from pipelines.storage.uris import join, read_range, write_atomic
from sr3core.errors import DataError

_TILE, _GAP, _TEXT = 192, 8, 28
_BACKGROUND, _INK = (246, 246, 244), (40, 40, 40)


def contact_sheet(directory: str, path: str, num_records: int = 24, seed: int = 0) -> None:
    """Draw random records of a stage's folder as one PNG: low resolution, high resolution, split, class and name.

    Args:
        directory: a stage's folder, such as OUT/64-256.
        path: where the PNG goes, local or on S3.
        num_records: how many to draw, over all splits.
        seed: decides which records are drawn.

    Raises:
        DataError: the stage is incomplete or empty.
    """
    manifest = load_manifest(directory)
    places = [
        (split, entry, index)
        for split, entries in manifest.splits.items()
        for entry in entries
        for index in range(entry.num_samples)
    ]
    if not places:
        raise DataError(f"{directory} holds no records to draw")
    chosen = sorted(random.Random(seed).sample(range(len(places)), min(num_records, len(places))))
    tiles = [_draw(places[place][0], _read(directory, *places[place][1:])) for place in chosen]
    columns = max(1, round((len(tiles) * tiles[0].height / tiles[0].width) ** 0.5))
    rows = -(-len(tiles) // columns)
    title = f"{manifest.stage.name}: {len(chosen)} of {len(places)} records"
    sheet = Image.new("RGB", (columns * tiles[0].width + _GAP, rows * tiles[0].height + _TEXT + _GAP), _BACKGROUND)
    ImageDraw.Draw(sheet).text((_GAP, _GAP), title, _INK, font_size=16)
    for number, tile in enumerate(tiles):
        row, column = divmod(number, columns)
        sheet.paste(tile, (_GAP + column * tile.width, _TEXT + _GAP + row * tile.height))
    write_atomic(path, encode_compact_png(np.asarray(sheet)))


def _read(directory: str, entry: ShardEntry, number: int) -> Record:
    index = load_index(directory, entry.name)
    members = index.members[number]
    shard = join(directory, entry.name)
    return read_record(index.keys[number], {name: read_range(shard, *place) for name, place in members.items()})


def _draw(split: str, record: Record) -> Image.Image:
    """One tile: the low-resolution images, enlarged with visible pixels to the size of the high-resolution one."""
    sigmas = record.meta.get("blur_sigmas", [])
    images = [] if record.low is None else [("low", record.low)]
    images += [(f"blur {sigma:.2f}", image) for sigma, image in zip(sigmas, record.low_blurred, strict=False)]
    images.append(("high", record.high))
    tile = Image.new("RGB", (len(images) * (_TILE + _GAP) + _GAP, _TILE + 2 * _TEXT), _BACKGROUND)
    draw = ImageDraw.Draw(tile)
    for number, (caption, pixels) in enumerate(images):
        left = number * (_TILE + _GAP)
        tile.paste(_scaled(pixels), (left, _TEXT))
        draw.text((left, _TEXT - 14), f"{caption} {pixels.shape[1]}x{pixels.shape[0]}", _INK)
    label = "" if record.label is None else f" class {record.label}"
    name = record.meta.get("name", record.key).encode("ascii", "backslashreplace").decode()
    if window := record.meta.get("window"):
        name += "@{},{}".format(*window)
    draw.text((0, _TEXT + _TILE + 2), f"{split}{label} {name[-28 * len(images) :]}", _INK)
    return tile


def _scaled(pixels: np.ndarray) -> Image.Image:
    way = Image.Resampling.NEAREST if pixels.shape[0] < _TILE else Image.Resampling.LANCZOS
    return Image.fromarray(pixels).resize((_TILE, _TILE), way)
