"""Runs on fields: their channels, kept in the run's configuration, and models of the sizes and channels of the data."""

from dataclasses import replace

from pipelines.prepare.fields.plan import FIELD_PLAN, planned_stages
from pipelines.settings.mixtures import describe_data, parts_of
from pipelines.settings.presets import FIELDS, fields
from pipelines.settings.train import RunConfig, TrainConfig
from pipelines.shards.manifest import MANIFEST, load_manifest
from pipelines.storage.uris import exists, join
from sr3core.config import override
from sr3core.errors import DataError
from sr3core.samples.spec import SampleSpec
from sr3core.sizes import Size, sides_of

SMALLEST_LEVEL = 8
"""Side of a U-Net's coarsest level, at least."""
_WIDTHS = (1, 2, 2, 4, 4)
"""Width of each level in multiples of the first one's."""


def with_samples(config: RunConfig, data: str) -> RunConfig:
    """Note the channels of the data, which every later command needs: outputs are converted back with them."""
    places = {name: join(parts_of(data)[0].folder, name) for name in sorted({s.data_stage for s in config.stages})}
    found = {name: load_manifest(place).sample for name, place in places.items() if exists(join(place, MANIFEST))}
    return replace(config, samples={name: spec for name, spec in found.items() if spec is not None})


def fitted_to_data(config: RunConfig, data: str) -> RunConfig:
    """The preset for fields, with the sizes and channels of the data; other runs stay as they are.

    Raises:
        DataError: the data are no fields.
    """
    if config.name != FIELDS:
        return config
    folder = parts_of(data)[0].folder
    if not exists(join(folder, FIELD_PLAN)):
        raise DataError(
            f"{describe_data(data)} holds no fields; prepare a store with `sr3 prepare --source STORE.zarr --out DATA`"
        )
    (name,) = planned_stages(folder)
    manifest = load_manifest(join(folder, name))
    assert manifest.sample is not None, "a plan of fields makes fields"
    assert manifest.stage.low_size is not None, "and none of a base model"
    low, high = manifest.stage.low_size, manifest.stage.high_size
    return replace(config, stages=tuple(_fitted(stage, low, high, manifest.sample) for stage in config.stages))


def _fitted(stage: TrainConfig, low: Size, high: Size, spec: SampleSpec) -> TrainConfig:
    unet = stage.model.unet
    (default, *_) = fields().stages
    given = unet.channel_multipliers != default.model.unet.channel_multipliers
    sized = override(
        unet,
        image_size=high,
        channel_multipliers=unet.channel_multipliers if given else levels_of(high),
        image_channels=len(spec.high),
        extra_channels=spec.num_extra,
    )
    model = override(stage.model, low_size=low, high_size=high, unet=sized, bounded=spec.is_bounded)
    model.check_channel_weights()
    return replace(stage, model=model)


def levels_of(size: Size) -> tuple[int, ...]:
    """Widths of a U-Net's levels for fields of a size: halved while the sides are even and stay large enough."""
    levels, sides = 1, sides_of(size)
    while levels < len(_WIDTHS) and all(
        side % 2**levels == 0 and side // 2**levels >= SMALLEST_LEVEL for side in sides
    ):
        levels += 1
    return _WIDTHS[:levels]
