"""Upscaling a store of fields: an ensemble for each of its samples, in tiles, on Ray actors; finished ones are kept."""

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.runs.run_folder import Run, open_run
from pipelines.runs.stage_run import StageRun
from pipelines.runtime.actor_pool import run_on_actors
from pipelines.runtime.actor_resources import find_actor_resources
from pipelines.runtime.progress_display import Counted, print_progress
from pipelines.settings.upscale import UpscaleConfig
from pipelines.storage.uris import absolute
from pipelines.stores.names import NETCDF, RASTER, ZARR, suffix_of
from pipelines.stores.opening import open_store, require_packages
from pipelines.stores.raster_store import RasterStore
from pipelines.stores.refined import RefinedStore, Refinement
from pipelines.stores.refined_rasters import RefinedRasters
from pipelines.stores.store import Store
from sr3core.config import fingerprint, from_dict, to_dict
from sr3core.errors import ConfigError, DataError, Sr3Error
from sr3core.randomness import derive_seed
from sr3core.samples.spec import SampleSpec
from sr3core.samples.transforms import low_to_model, to_model, to_physical

if TYPE_CHECKING:
    from sr3core.upscaling.stage import Stage


def run_of_fields(location: str) -> Run | None:
    """The run at a location, if it makes fields; None for one of images, and for what is no run, whoever asks next."""
    try:
        run = open_run(location)
    except Sr3Error:
        return None
    return run if any(stage.sample is not None for stage in run.stages) else None


@dataclass(frozen=True, slots=True)
class FieldPlan:
    """A store to upscale, and the stage that does it."""

    run: str
    stage: str
    source: str
    out: str
    """A .zarr, a NetCDF file that is made of one at the end, or of TIFF a folder."""
    config: UpscaleConfig

    @property
    def working(self) -> str:
        """The zarr store, or the folder of TIFF, that is filled."""
        return f"{self.out}.unfinished.zarr" if suffix_of(self.out) in NETCDF else self.out


def plan_fields(run: Run, sources: tuple[str, ...], out: str, config: UpscaleConfig) -> FieldPlan:
    """Check what is to be upscaled; writes nothing, needs no Ray.

    Raises:
        ConfigError: it is not one store, the output is of another kind, or static maps are missing.
        DataError: the store lacks a variable, or has it in another unit.
        CheckpointError: the run's weights are not there.
    """
    stages = run.cascade() or run.regressions()
    if len(sources) != 1 or len(stages) != 1:
        raise ConfigError(f"images: a run of fields takes one store, such as lr.zarr; {len(sources)} were named")
    _check_kind(sources[0], out)
    (stage,) = stages
    stage.check_weights()
    plan = FieldPlan(run.location, stage.name, absolute(sources[0]), absolute(out), config)
    _check_input(_spec(stage), open_store(plan.source))
    _static_maps(_spec(stage), config)
    return plan


def _check_kind(source: str, out: str) -> None:
    """Check that the output is of a kind that the input can be written as: of TIFF a folder, of others a store."""
    if isinstance(open_store(absolute(source)), RasterStore):
        if suffix_of(out) in (*ZARR, *NETCDF, *RASTER):
            raise ConfigError(f"out: {out} is to be a folder, which receives a TIFF for each of {source}")
        return
    if suffix_of(out) not in (*ZARR, *NETCDF):
        raise ConfigError(f"out: {out} is neither a .zarr nor a NetCDF file (.nc), which hold fields")
    require_packages("xarray", "zarr", "netCDF4")


def _spec(stage: StageRun) -> SampleSpec:
    assert stage.sample is not None, "run_of_fields has been asked"
    return stage.sample


def _check_input(spec: SampleSpec, store: Store) -> None:
    store.choose(tuple(channel.name for channel in spec.low), "images")
    for channel in spec.low:
        units = store.variables[channel.name].units
        if units != channel.units:
            raise DataError(
                f"{store.location}: {channel.name} is in {units!r}, and the model was trained on {channel.units!r}"
            )


def _static_maps(spec: SampleSpec, config: UpscaleConfig) -> np.ndarray | None:
    """The static maps as the network takes them, (K, H, W)."""
    names = tuple(channel.name for channel in spec.static)
    if not names:
        return None
    if config.static is None:
        raise ConfigError(
            f"static: the model takes {', '.join(names)} on the output's grid; name the store that has them with"
            " --static"
        )
    store = open_store(config.static)
    store.choose(names, "static")
    return to_model(np.stack([store.read_map(name) for name in names]), spec.static)


def describe_field_upscaling(plan: FieldPlan) -> str:
    """What upscale_fields would do."""
    stage, store = open_run(plan.run).stage(plan.stage), open_store(plan.source)
    spec = _spec(stage)
    low = store.variables[spec.low[0].name].size
    high = stage.model.enlarged(*low)
    names = ", ".join(channel.name for channel in spec.high)
    return (
        f"would make {names} on {high[0]}x{high[1]} cells from {low[0]}x{low[1]} for {store.num_samples} samples,"
        f" {plan.config.members} members each, in {plan.out}"
    )


def upscale_fields(plan: FieldPlan) -> int:
    """Upscale the samples that are missing, on Ray actors where Ray runs; returns how many were made.

    Raises:
        DataError: values are missing in the input, or the output was begun with other settings.
    """
    missing = _output(plan).missing
    progress, display = Counted("upscale", len(missing), "samples"), print_progress()
    for _ in _worked(plan, missing):
        progress.done += 1
        display(progress)
    if plan.working != plan.out:
        _convert(plan)
    return len(missing)


def _worked(plan: FieldPlan, missing: list[int]) -> Iterator[Any]:
    ray: Any = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        upscaler = FieldUpscaler(plan.run, plan.stage, plan.source, plan.out, to_dict(plan.config), "cpu")
        yield from map(upscaler.work, missing)
        return
    config = plan.config
    found = find_actor_resources(config.num_actors, config.inference.gpus, open_run(plan.run).trained_on_gpus)
    actor = ray.remote(FieldUpscaler).options(num_cpus=found.cpus, num_gpus=found.gpus)
    make = partial(actor.remote, plan.run, plan.stage, plan.source, plan.out, to_dict(config), found.device, found.cpus)
    for number, result in run_on_actors(make, missing, found.num_actors):
        if isinstance(result, Exception):
            raise result
        yield number


def _output(plan: FieldPlan) -> RefinedStore | RefinedRasters:
    stage, store = open_run(plan.run).stage(plan.stage), open_store(plan.source)
    spec = _spec(stage)
    grid = store.variables[spec.low[0].name]
    how = {"source": plan.source, "weights": stage.weights.fingerprint(), "config": fingerprint(plan.config)}
    if isinstance(store, RasterStore):
        return RefinedRasters(plan.out, store, spec.high, plan.config.members, how)
    what = Refinement(
        store,
        grid,
        stage.model.scale,
        stage.model.enlarged(*grid.size),
        {channel.name: channel.units for channel in spec.high},
        plan.config.members,
        how,
    )
    return RefinedStore(plan.working, what)


def _convert(plan: FieldPlan) -> None:
    """Make the NetCDF file, under another name first."""
    import shutil

    import xarray as xr

    data = xr.open_zarr(plan.working, chunks=None, consolidated=False).drop_vars("is_done")
    data.attrs = {}
    data.to_netcdf(f"{plan.out}.writing", engine="netcdf4")
    os.replace(f"{plan.out}.writing", plan.out)
    shutil.rmtree(plan.working)


class FieldUpscaler:
    """Holds a stage and makes samples one by one; its arguments are FieldPlan's, a device and a number of threads."""

    def __init__(
        self, run: str, stage: str, source: str, out: str, config: dict[str, Any], device: str, threads: int = 0
    ) -> None:
        import torch

        if threads:
            torch.set_num_threads(threads)
        self._plan = FieldPlan(run, stage, source, out, from_dict(UpscaleConfig, config))
        self._device = device
        found = open_run(run).stage(stage)
        self._spec, self._store = _spec(found), open_store(source)
        settings = self._plan.config
        self._stage: Stage = found.load(settings.schedule, settings.inference, device, few_steps=True)
        self._static = _static_maps(self._spec, settings)
        self._output = _output(self._plan)

    def work(self, number: int) -> int:
        """Make all members of a sample, write them, and return its number."""
        self._output.write(number, np.stack([self._member(number, member) for member in range(self._members)]))
        return number

    @property
    def _members(self) -> int:
        return self._plan.config.members

    def _member(self, number: int, member: int) -> np.ndarray:
        import torch

        from sr3core.upscaling.tile_grid import Tiling
        from sr3core.upscaling.tiles import run_tiled_cascade

        config, device = self._plan.config, self._device
        low = torch.from_numpy(low_to_model(self._low(number), self._spec))[None].to(device)
        static = None if self._static is None else torch.from_numpy(self._static)[None].to(device)
        seed = derive_seed(config.seed, self._store.names[number], member)
        tiling = Tiling(config.tile, config.overlap, config.batch)
        strips = [strip for _, strip in run_tiled_cascade([self._stage], low, seed, tiling, static=static)]
        return to_physical(torch.cat(strips, dim=-2)[0].float().cpu().numpy(), self._spec.high)

    def _low(self, number: int) -> np.ndarray:
        planes = [self._store.read(channel.name, number, number + 1)[0] for channel in self._spec.low]
        for channel, plane in zip(self._spec.low, planes, strict=True):
            if plane.dtype.kind == "f" and not np.isfinite(plane).all():
                raise DataError(
                    f"{self._store.location}: {channel.name} of {self._store.names[number]} has missing values; fill"
                    " them, for example with `cdo setmisstonn`"
                )
        return np.stack([plane.astype(np.float32) for plane in planes])
