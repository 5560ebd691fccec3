"""One stage of a run: where its files are, with its configuration."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.runs.bucket_runs import BucketRun
from pipelines.runs.stage_schedules import choose_schedule
from pipelines.runs.stage_weights import StageWeights
from pipelines.settings.inference import InferenceConfig
from pipelines.settings.train import TrainConfig
from sr3core.config import override
from sr3core.diffusion.schedules import InferenceSchedule
from sr3core.errors import ConfigError
from sr3core.hyperparameters import ModelConfig, ObjectiveConfig
from sr3core.samples.spec import SampleSpec

if TYPE_CHECKING:  # torch takes seconds to import, and the command line only wants the layout
    from sr3core.networks.inference import InferenceNetwork
    from sr3core.upscaling.stage import Stage


MEAN = "mean"
"""Folder in a stage's folder with the frozen weights of the regression that its chain starts from."""


@dataclass(frozen=True, slots=True)
class StageRun:
    """One stage of a run."""

    path: Path
    config: TrainConfig
    data: str
    """Folder that `sr3 prepare` wrote, or a mixture of several."""
    bucket: BucketRun | None = None
    """Where the run is if path is a working copy; None for a run on a disk."""
    sample: SampleSpec | None = None
    """The channels of the fields that it makes; None for a stage of RGB images."""

    @property
    def location(self) -> str:
        """What open_run takes on any machine to find the run."""
        return self.bucket.uri if self.bucket else str(self.path.parent)

    @property
    def name(self) -> str:
        """The stage's name."""
        return self.config.name

    @property
    def model(self) -> ModelConfig:
        """What it maps, and its network."""
        return self.config.model

    @property
    def metrics(self) -> Path:
        """metrics.jsonl."""
        return self.path / "metrics.jsonl"

    @property
    def incidents(self) -> Path:
        """incidents.jsonl: its bad steps."""
        return self.path / "incidents.jsonl"

    @property
    def checkpoints(self) -> Path:
        """Folder of checkpoints."""
        return self.path / "checkpoints"

    @property
    def schedules(self) -> Path:
        """Folder of inference schedules."""
        return self.path / "schedules"

    @property
    def weights(self) -> StageWeights:
        """Its checkpoints, for sampling."""
        return StageWeights(self.checkpoints, self.model, self.bucket)

    @property
    def mean(self) -> StageWeights | None:
        """The regression that its chain starts from, as it was when the training began; None without one."""
        if self.model.objective.residual != "regression":
            return None
        model = override(self.model, kind="regression", objective=ObjectiveConfig(norm=2))
        return StageWeights(self.path / MEAN / "checkpoints", model, self.bucket)

    def check_weights(self) -> None:
        """Refuse missing weights, or those of another network, before any work starts.

        Raises:
            CheckpointError: names the checkpoint.
        """
        for weights in filter(None, (self.weights, self.mean)):
            weights.check()

    def schedule(self, wanted: str | None = None, few_steps: bool = False) -> InferenceSchedule | None:
        """The inference schedule to use; see `choose_schedule`."""
        return choose_schedule(self.schedules, self.model, wanted, few_steps)

    def load(
        self,
        schedule: str | None = None,
        inference: InferenceConfig | None = None,
        device: str = "cpu",
        few_steps: bool = False,
    ) -> "Stage":
        """The stage, ready to upscale; its schedule is that of `choose_schedule`."""
        from sr3core.upscaling.stage import Stage

        inference = inference or InferenceConfig()
        network = self.weights.load_fast(inference, device)
        wanted = self.schedule(schedule, few_steps)
        noise = inference.input_noise if takes_input_noise(self.model) else 0.0
        return Stage(self.name, self.model, network, wanted, self.load_mean(inference, device), noise)

    def load_mean(self, inference: InferenceConfig | None = None, device: str = "cpu") -> "InferenceNetwork | None":
        """The regression that its chain starts from, on a device; None without one.

        Raises:
            CheckpointError: it is missing or damaged.
        """
        return None if self.mean is None else self.mean.load_fast(inference or InferenceConfig(), device)


def takes_input_noise(model: ModelConfig) -> bool:
    """Whether noise may be added to a stage's input when it is sampled."""
    return model.kind == "sr3" and model.unet.input_noise > 0


def check_makes_images(stages: Sequence[StageRun]) -> None:
    """Check that stages make images, which photos can be enlarged by.

    Raises:
        ConfigError: they make fields.
    """
    if any(stage.sample is not None for stage in stages):
        raise ConfigError("run: its model is of fields, not of images; use `sr3 upscale STORE --run RUN --out STORE`")


def check_input_noise(stages: Sequence[StageRun], inference: InferenceConfig) -> None:
    """Check that one stage at least takes the noise that is wanted for inputs.

    Raises:
        ConfigError: none was trained with it.
    """
    if inference.input_noise and not any(takes_input_noise(stage.model) for stage in stages):
        raise ConfigError(
            f"inference.input_noise: {inference.input_noise}, but no stage was trained with noise on its input; train"
            " with --model.unet.input-noise 0.5, or leave it out"
        )
