"""Settings of `sr3 evaluate`: which images of a run are measured, and by which variant of each metric."""

from dataclasses import dataclass, field

from pipelines.settings.inference import InferenceConfig
from pipelines.settings.locations import Location, ScheduleChoice
from pipelines.settings.stages import Split
from sr3core.config import ADDED, PLACEMENT
from sr3core.hyperparameters import require


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluateConfig:
    """Which held-out images a run is measured on, and how they are sampled."""

    split: Split = "test"
    """Split of the run's data to measure on."""
    limit: int | None = None
    """Maximum number of images, taken from the start of the split; None takes all."""
    schedule: ScheduleChoice | None = None
    """Inference schedule: a file, the name of one of the run's schedules, or a number of steps; None takes the best
    that a search has found. An end @GAMMA starts from the input with noise of that level: 100@0.1."""
    seed: int = 0
    """Seed for the noise."""
    num_seeds: int = field(default=4, metadata=ADDED)
    """Samples that SR3 draws for each of the first held-out images, each with different noise, to measure their
    diversity; 1 skips that measurement."""
    members: int | None = field(default=None, metadata=ADDED)
    """Of a run of fields: members of each ensemble, at least 2; None for 8."""
    num_actors: int | None = field(default=None, metadata=PLACEMENT)
    """Copies of the models that work in parallel, one CPU each; None starts one per GPU of the cluster, at least
    one."""
    inference: InferenceConfig = field(default_factory=InferenceConfig)
    """How the networks are run."""

    def __post_init__(self) -> None:
        require(self.limit is None or self.limit >= 1, f"limit: {self.limit} is not positive")
        require(self.members is None or self.members >= 2, f"members: {self.members} is fewer than 2")
        require(self.num_seeds >= 1, f"num_seeds: {self.num_seeds} is not positive")
        require(self.num_actors is None or self.num_actors >= 1, f"num_actors: {self.num_actors} is not positive")

    @property
    def num_members(self) -> int:
        """Members of an ensemble of fields."""
        return 8 if self.members is None else self.members


OWN_METRICS = frozenset(
    (
        *("psnr", "ssim", "lpips", "consistency", "distance", "kid", "precision", "recall", "density", "coverage"),
        *("inception_score", "top_1_error", "top_5_error", "diversity"),
    )
)
"""Names that no metric of another program can have."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MeasureConfig:
    """Which variant of each metric is computed; tables print the variant beside the number."""

    y_channel: bool = False
    """Compute PSNR and SSIM on BT.601 luma, the classical convention, instead of on RGB as in the paper."""
    crop_border: int = 0
    """Pixels to cut off each side before PSNR and SSIM; 0 in the paper."""
    classifier: Location | None = None
    """Weight file of ResNet-50 or EfficientNet-Lite0, used for --labels and, if the Inception weights lack logits, for
    the Inception Score. None takes $SR3_CLASSIFIER_WEIGHTS, or else the package of the extra `classifier`, and uses it
    for --labels only."""
    classifier_crop: float = 1.0
    """Side of the central crop that the classifier sees, as a fraction: 1 for Table 3's outputs, 0.875 for whole
    photos."""
    lpips: Location | None = None
    """Weight file of LPIPS on AlexNet, a saved state_dict of the package lpips; adds LPIPS, which the paper does not
    use."""
    metric: tuple[str, ...] = field(default=(), metadata=ADDED)
    """NAME=COMMAND: a metric by a program of your own that needs no reference. It reads lines {"image": PATH} and
    answers each by a line {"value": NUMBER}."""
    num_splits: int = 10
    """Parts that the images are split into for the Inception Score; fewer if there are fewer images."""
    level: float = 0.95
    """Coverage of the confidence intervals."""
    num_resamples: int = 1000
    """Bootstrap resamples for the intervals of means over images."""
    num_distance_resamples: int = 20
    """Bootstrap resamples for the standard errors of metrics of whole sets, such as FID and KID; each resample computes
    the metric again. 0 skips these standard errors."""

    def __post_init__(self) -> None:
        for text in self.metric:
            name, sign, command = text.partition("=")
            require(
                bool(sign and command.strip()) and name.isidentifier() and name not in OWN_METRICS,
                f"metric: {text!r} is not NAME=COMMAND, with a name that is a word and none of our own metrics'",
            )
        require(len(self.commands) == len(self.metric), f"metric: {self.metric} name one twice")
        require(self.crop_border >= 0, f"crop_border: {self.crop_border} is negative")
        require(0 < self.classifier_crop <= 1, f"classifier_crop: {self.classifier_crop} is not in (0, 1]")
        require(0 < self.level < 1, f"level: {self.level} is not between 0 and 1")
        require(self.num_splits >= 1, f"num_splits: {self.num_splits} is not positive")
        require(self.num_resamples >= 1, f"num_resamples: {self.num_resamples} is not positive")
        few = self.num_distance_resamples
        require(few == 0 or few >= 2, f"num_distance_resamples: {few} is neither 0 nor at least 2")

    @property
    def commands(self) -> dict[str, str]:
        """Name -> command of each metric by another program."""
        return {text.partition("=")[0]: text.partition("=")[2] for text in self.metric}
