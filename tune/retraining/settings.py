"""Configuration of a retraining: one JSON file for `sr3 retrain`. No torch, no ray."""

from dataclasses import dataclass, field
from typing import Literal

from pipelines.settings.evaluate import EvaluateConfig
from pipelines.settings.locations import Location
from pipelines.settings.prepare import PrepareConfig
from pipelines.settings.presets import preset
from pipelines.settings.stages import stage_name
from pipelines.settings.train import RunConfig, TrainConfig
from sr3core.config import ADDED, PLACEMENT, override
from sr3core.hyperparameters import require
from sr3core.sizes import num_pixels
from tune.search.settings import FeatureChoice, SearchConfig

MIN_COMPARED = 3
"""Held-out images without which two models cannot be compared."""
PromotionObjective = Literal["fid", "kid", "psnr", "ssim", "consistency"]


@dataclass(frozen=True, kw_only=True, slots=True)
class PromotionConfig:
    """The metric in which a new model must beat the promoted one, and how surely."""

    objective: PromotionObjective = "fid"
    """Metric that is compared. Without Inception weights, fid and kid are distances on other features, and labelled as
    such."""
    features: FeatureChoice = "auto"
    """Feature network. inception fails without its weights; seeded is a stand-in that is never called FID; auto uses
    inception where its weights are found, else seeded."""
    level: float = 0.95
    """Probability that no model that is not better is ever promoted over a promoted one, however many are compared with
    it: the interval around each improvement must lie above zero at that comparison's share."""
    num_comparisons: int = field(default=30, metadata=ADDED)
    """Comparisons with one promoted model that share half of the chance 1 - level; as many after these share half of
    the rest, and so on. 30: a month of nights."""
    num_references: int = field(default=1024, metadata=ADDED)
    """Training images that outputs are compared with by fid and kid where fewer than 10,000 images are held out."""
    num_resamples: int = 50
    """Random exchanges of the two models' outputs, for the error of the improvement; each one costs two distances."""

    def __post_init__(self) -> None:
        require(0 < self.level < 1, f"level: {self.level} is not between 0 and 1")
        require(self.num_comparisons >= 1, f"num_comparisons: {self.num_comparisons} is not positive")
        require(self.num_references >= 16, f"num_references: {self.num_references} is less than 16")
        require(self.num_resamples >= 2, f"num_resamples: {self.num_resamples} is less than 2")


@dataclass(frozen=True, kw_only=True, slots=True)
class RetrainConfig:
    """A chain of commands that is run repeatedly on a growing source: `sr3 retrain`."""

    prepare: PrepareConfig
    """The source, and the folder for its shards. Images that the first preparation held out stay held out; images
    added later are used for training."""
    run: str | RunConfig
    """What to train: a preset's name, or the output of `sr3 train PRESET --print-config`."""
    registry: Location = field(metadata=PLACEMENT)
    """Folder or s3:// prefix of the model registry."""
    work: Location = field(metadata=PLACEMENT)
    """Folder on a file system that all nodes share; each retraining gets a subfolder."""
    warm_start: bool = True
    """Start from the promoted model's weights, with a fresh optimiser; False starts from random weights each time."""
    num_steps: int | None = None
    """Training steps of a warm start; by default as many as the run's stages have."""
    searches: tuple[SearchConfig, ...] = ()
    """Schedule searches after the training, at most one per stage and budget; a stage without one uses the default
    schedule."""
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    """The held-out images on which the new and the promoted model are compared, with the same noise."""
    promotion: PromotionConfig = field(default_factory=PromotionConfig)
    """When the new model replaces the promoted one."""
    lease_seconds: float = field(default=120.0, metadata=PLACEMENT)
    """Seconds until the registry is free again after a retraining died on another machine; must exceed the difference
    between the machines' clocks."""

    def __post_init__(self) -> None:
        require(bool(self.registry), "registry: empty; name a folder or s3:// prefix for the models")
        require(bool(self.work), "work: empty; name a folder on a file system that all nodes share")
        require("://" not in self.work, f"work: {self.work} is a URI; name a folder that all nodes share")
        require(self.lease_seconds > 0, f"lease_seconds: {self.lease_seconds} is not positive")
        require(self.num_steps is None or self.num_steps >= 1, f"num_steps: {self.num_steps} is not positive")
        stages = {stage.name: stage for stage in self.run_config.stages}
        for search in self.searches:
            require(search.stage in stages, f"searches: the run has no stage {search.stage!r}, only {list(stages)}")
        missing = sorted(self.data_stages - set(self.prepare.stages))
        require(not missing, f"prepare.stages: {', '.join(missing)} missing, which the run and its evaluation need")

    @property
    def run_config(self) -> RunConfig:
        """What is trained."""
        return preset(self.run) if isinstance(self.run, str) else self.run

    @property
    def warm_run_config(self) -> RunConfig:
        """What is trained when there are weights to start from."""
        run = self.run_config
        if self.num_steps is None:
            return run
        return override(run, stages=tuple(override(stage, num_steps=self.num_steps) for stage in run.stages))

    @property
    def judged_stage(self) -> str:
        """The prepared stage on which models are compared: from the cascade's first size to its last."""
        return _end_to_end(self.run_config.stages)

    @property
    def data_stages(self) -> set[str]:
        """The prepared stages that are read."""
        return {stage.data_stage for stage in self.run_config.stages} | {self.judged_stage}


def _end_to_end(stages: tuple[TrainConfig, ...]) -> str:
    models = [stage.model for stage in stages if stage.model.kind == "sr3"]
    require(bool(models), "run: no stage is of kind sr3, so there is nothing to compare models by")
    smallest = min((model.low_size for model in models), key=num_pixels)
    return stage_name(smallest, max((model.high_size for model in models), key=num_pixels))
