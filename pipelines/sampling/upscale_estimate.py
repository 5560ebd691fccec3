"""How long photos would take to upscale on this machine, from one measured evaluation per network and tile size."""

import time
from typing import TYPE_CHECKING

from pipelines.runs.run_folder import Run
from pipelines.runtime.progress_display import duration
from pipelines.sampling.photo_upscaler import decode_limited, load_cascade
from pipelines.settings.upscale import UpscaleConfig

if TYPE_CHECKING:
    from sr3core.upscaling.stage import Stage
    from sr3core.upscaling.tile_grid import TileGrid

_SLOW_SECONDS = 2.0
"""An evaluation that takes longer is not repeated: what the first one does besides computing hardly matters."""


class UpscaleEstimate:
    """Sizes, tiles and times of photos; the networks are loaded for the first one."""

    def __init__(self, run: Run, config: UpscaleConfig) -> None:
        self._run, self._config = run, config
        self._loaded: list[Stage] = []
        self._measured: dict[tuple[str, tuple[int, int]], float] = {}
        self.seconds = 0.0
        """Time of all photos so far, one after another."""

    @property
    def device(self) -> str:
        """Where it is measured: cpu or cuda."""
        import torch

        return "cuda" if torch.cuda.is_available() else "cpu"

    def describe(self, data: bytes) -> str:
        """`6000x4000, 486 tiles x 10 evaluations, about 1:30:00` for a photo's bytes.

        Raises:
            DecodeError: the photo cannot be decoded, or is too large.
        """
        from sr3core.upscaling.stage import output_size
        from sr3core.upscaling.tile_grid import Tiling
        from sr3core.upscaling.tiles import plan_cascade

        models = [stage.model for stage in self._stages]
        height, width = decode_limited(data, self._config, models).pixels.shape[:2]
        tiling = Tiling(self._config.tile, self._config.overlap, self._config.batch)
        grids = plan_cascade(self._stages, height, width, tiling)
        seconds = sum(self._seconds(stage, grid) for stage, grid in zip(self._stages, grids, strict=True))
        self.seconds += seconds
        rows, columns = output_size(models, height, width)
        tiles = " + ".join(_work(stage, grid) for stage, grid in zip(self._stages, grids, strict=True))
        return f"{columns}x{rows}, {tiles}, about {duration(seconds)}"

    @property
    def _stages(self) -> "list[Stage]":
        if not self._loaded:
            self._loaded = load_cascade(self._run, self._config, self.device)
        return self._loaded

    def _seconds(self, stage: "Stage", grid: "TileGrid") -> float:
        key = stage.name, grid.tile
        if key not in self._measured:
            self._measured[key] = self._measure(stage, grid.tile)
        return self._measured[key] * grid.num_tiles * _evaluations(stage)

    def _measure(self, stage: "Stage", tile: tuple[int, int]) -> float:
        """Seconds of one evaluation of a stage's network on one tile."""
        import torch

        image = torch.zeros(1, 3, *tile, device=self.device)
        gamma = torch.full((1,), 0.5, device=self.device)
        seconds = 0.0
        for _ in range(2):
            started = time.perf_counter()
            with torch.no_grad():
                stage.network(image, image, gamma).cpu()  # .cpu() waits for a GPU
            seconds = time.perf_counter() - started
            if seconds > _SLOW_SECONDS:
                break
        return seconds


def _evaluations(stage: "Stage") -> int:
    assert stage.schedule is not None, "a cascade's stages are SR3's"
    return stage.schedule.num_evaluations + (stage.mean is not None)


def _work(stage: "Stage", grid: "TileGrid") -> str:
    tiles = "1 tile" if grid.num_tiles == 1 else f"{grid.num_tiles} tiles"
    return f"{tiles} x {_evaluations(stage)} evaluations"
