"""Configuration of a retraining: one JSON file for `sr3 retrain`. No torch, no ray."""

from dataclasses import dataclass, field
from typing import Literal

from pipelines.settings.evaluate import EvaluateConfig
from pipelines.settings.prepare import PrepareConfig
from pipelines.settings.presets import preset
from pipelines.settings.train import RunConfig, TrainConfig
from sr3core.config import PLACEMENT, override
from sr3core.hyperparameters import require
from tune.search.settings import FeatureChoice, SearchConfig

PromotionObjective = Literal["fid", "kid", "psnr", "ssim", "consistency"]

HIGHER_IS_BETTER = ("psnr", "ssim")


@dataclass(frozen=True, kw_only=True, slots=True)
class PromotionConfig:
    """What a new model must be better in than the promoted one, and how surely."""

    objective: PromotionObjective = "fid"
    """What is compared; without Inception weights fid and kid are distances on other features, and say so."""
    features: FeatureChoice = "auto"
    """Feature network: inception fails without weights, seeded is a stand-in that is never called FID, auto takes
    inception where it finds weights."""
    level: float = 0.95
    """Probability of the interval around the improvement, which must lie above zero."""
    num_resamples: int = 50
    """Bootstrap resamples of the held-out images, the same for both models; each is two distances."""

    def __post_init__(self) -> None:
        require(0 < self.level < 1, f"level: {self.level} is not between 0 and 1")
        require(self.num_resamples >= 2, f"num_resamples: {self.num_resamples} is less than 2")


@dataclass(frozen=True, kw_only=True, slots=True)
class RetrainConfig:
    """A chain that is run again and again on a source that grows: `sr3 retrain`."""

    prepare: PrepareConfig
    """The source, and the folder of its shards. What the first preparation holds out stays held out; what comes later
    is for training."""
    run: str | RunConfig
    """What is trained: a preset's name, or what `sr3 train PRESET --print-config` prints."""
    registry: str = field(metadata=PLACEMENT)
    """Folder or s3:// prefix of the models."""
    work: str = field(metadata=PLACEMENT)
    """Folder on a file system that all nodes share; each retraining has one of its own in it."""
    warm_start: bool = True
    """Start from the promoted model's weights, with a fresh optimiser; False starts from nothing each time."""
    num_steps: int | None = None
    """Steps of a training that starts warm; None takes as many as the run's stages say."""
    searches: tuple[SearchConfig, ...] = ()
    """Schedule searches after the training, at most one a stage and budget; a stage without one has the default."""
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    """Held-out images on which the new and the promoted model are compared, with the same noise."""
    promotion: PromotionConfig = field(default_factory=PromotionConfig)
    """When the new model takes the promoted one's place."""
    lease_seconds: float = field(default=120.0, metadata=PLACEMENT)
    """How long a registry waits for a retraining that has died on another machine; longer than clocks differ."""

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
        require(not missing, f"prepare.stages: {', '.join(missing)} missing, which the run and its evaluation read")

    @property
    def run_config(self) -> RunConfig:
        """What is trained."""
        return preset(self.run) if isinstance(self.run, str) else self.run

    @property
    def warm_run_config(self) -> RunConfig:
        """What is trained where weights to start from are there."""
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
    sizes = [(s.model.low_size or 0, s.model.high_size) for s in stages if s.model.kind == "sr3"]
    require(bool(sizes), "run: no stage is of kind sr3, so there is nothing to compare models by")
    return f"{min(low for low, _ in sizes)}-{max(high for _, high in sizes)}"
