"""The model that is tried: its cascade with any schedule, loaded once."""

from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING, Any

from pipelines.runs.run_folder import open_run
from pipelines.runs.shipped_models import is_shipped
from pipelines.sampling.photo_upscaler import load_cascade
from pipelines.settings.inference import InferenceConfig
from pipelines.settings.upscale import UpscaleConfig
from sr3core.errors import ConfigError

if TYPE_CHECKING:
    from sr3core.upscaling.stage import Stage


class TriedModel:
    """A trained cascade on a device.

    Raises:
        DataError: there is no model at the location.
        CheckpointError: its weights are missing, damaged or of another network.
        ConfigError: it has no super-resolution stage.
    """

    def __init__(self, location: str, inference: InferenceConfig, device: str) -> None:
        self._run, self._device = open_run(location), device
        if not self._run.cascade():
            raise ConfigError(f"{location} holds no super-resolution stage: nothing to enlarge pictures with")
        self._stages = load_cascade(self._run, UpscaleConfig(inference=inference), device)

    @property
    def title(self) -> str:
        """What the page calls it."""
        names = " -> ".join(stage.name for stage in self._stages)
        return f"{'The model in the box' if is_shipped(self._run.location) else self._run.location}: {names}"

    @property
    def magnification(self) -> float:
        """How many times larger an upscaled picture's sides are."""
        return float(prod(stage.model.scale for stage in self._stages))

    def load(self, schedule: str | None) -> "list[Stage]":
        """The cascade with a schedule, as `sr3 upscale --schedule` takes it; None for its own.

        Raises:
            ConfigError: it has more steps than a stage was trained with.
        """
        if schedule is None:
            return self._stages
        pairs = zip(self._stages, self._run.cascade(), strict=True)
        return [replace(stage, schedule=run.schedule(schedule, few_steps=True)) for stage, run in pairs]

    def describe(self) -> dict[str, Any]:
        """For the page: where it comes from, what it does, and its own schedule."""
        schedules = [stage.schedule for stage in self._stages if stage.schedule]
        return {
            "title": self.title,
            "location": self._run.location,
            "magnification": self.magnification,
            "schedules": [f"{schedule.name}, {schedule.num_steps} steps" for schedule in schedules],
            "most_steps": min(stage.model.noise_schedule.num_steps for stage in self._stages),
            "device": self._device,
        }
