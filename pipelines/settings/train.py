"""Settings of `sr3 train`: a stage's training, where it runs, and the stages of a run."""

import math
import re
from dataclasses import dataclass, field, replace
from typing import Literal

from pipelines.settings.locations import Location
from pipelines.settings.stages import stage_name
from sr3core.config import ADDED, PLACEMENT, differences, to_dict
from sr3core.degradations.settings import DegradationConfig
from sr3core.hyperparameters import AugmentationConfig, ModelConfig, OptimizerConfig, Precision, require
from sr3core.samples.spec import SampleSpec
from sr3core.sizes import describe, num_pixels

Tracker = Literal["tensorboard", "mlflow", "wandb"]
AllReduce = Literal["float32", "bfloat16"]
BlockBoundaries = Literal["aligned", "staggered"]


@dataclass(frozen=True, kw_only=True, slots=True)
class PlacementConfig:
    """Where and how fast a stage trains; none of it changes the result, so no fingerprint includes it."""

    num_workers: int = 1
    """DDP workers, at most num_lanes. 0 trains in the calling process, for tests and debugging."""
    min_workers: int | None = None
    """Elastic training: if nodes are lost, continue with as few workers as this, and grow back to num_workers later;
    None waits for all."""
    use_gpu: bool = False
    """Give each worker a GPU."""
    cpus_per_worker: float = 1.0
    """CPUs that Ray reserves for each worker, which computes with this many threads, at least one."""
    decoding_processes: int | None = None
    """Processes that read and decode a worker's images; None takes one fewer than cpus_per_worker where the worker has
    a GPU, and 0 elsewhere: then two threads of the worker do it."""
    resources: dict[str, float] = field(default_factory=dict)
    """Other resources that Ray reserves for each worker, by name, such as a custom resource of certain nodes."""
    wait_seconds: float = 1800.0
    """How long to wait for an autoscaler to add missing nodes. Resources that other jobs hold are waited for without
    limit; a Ray that the command started itself gets no nodes, so there is no wait."""
    max_failures: int = 3
    """How often in a row a stage may lose workers without having saved a newer checkpoint in between, before it fails.
    Nodes whose loss was announced do not count."""
    patience_seconds: float = 600.0
    """How long the workers wait for one that does not answer before the stage restarts from its newest checkpoint, in
    seconds: longer than a checkpoint takes to be saved or uploaded."""
    checkpoint_minutes: float | None = None
    """Also save a checkpoint when so many minutes have passed since the last one: the most that a lost node costs where
    steps are slow; None saves by steps alone. A node whose loss is announced (spot) is saved for at once."""
    prefetch_batches: int = 4
    """Batches to decode ahead of the training step."""
    compile: bool | None = None
    """Compile the network with torch.compile: minutes at the start, then faster steps; if compilation fails, the
    network runs uncompiled. None: where the workers have GPUs."""
    deterministic: bool = False
    """Use only GPU algorithms that give the same bits every time, so that a resumed training continues bit for bit, as
    it does on CPUs; otherwise cuDNN takes the fastest algorithm, which may round differently in another process."""
    recompute_activations: bool = False
    """Recompute the activations inside residual blocks in the backward pass instead of storing them. Saves memory for
    stages of large images, and makes a step a third slower."""
    trackers: tuple[Tracker, ...] = ("tensorboard",)
    """Trackers that receive the metrics besides metrics.jsonl; mlflow and wandb are extras, configured by their own
    environment variables."""
    cache_folder: Location = "/tmp/sr3-shards"
    """Local folder that caches the shards read from a bucket, for all workers of a machine."""
    cache_bytes: int = 50_000_000_000
    """Size limit of that cache; the least recently used shards are evicted first. If the shards that are read at once
    do not fit, records are read one by one from the bucket instead."""

    @property
    def compiles(self) -> bool:
        """Whether the network is compiled."""
        return self.use_gpu if self.compile is None else self.compile

    def __post_init__(self) -> None:
        require(self.num_workers >= 0, f"num_workers: {self.num_workers} is negative")
        require(
            self.min_workers is None or 1 <= self.min_workers <= self.num_workers,
            f"min_workers: {self.min_workers} is not in 1..num_workers {self.num_workers}",
        )
        require(self.cpus_per_worker > 0, f"cpus_per_worker: {self.cpus_per_worker} is not positive")
        require(all(self.resources.values()), f"resources: {self.resources} holds a zero; leave it out")
        require(
            0 < self.patience_seconds < math.inf,
            f"patience_seconds: {self.patience_seconds} is not positive and finite",
        )
        for name in ("wait_seconds", "max_failures", "cache_bytes"):
            require(getattr(self, name) >= 0, f"{name}: {getattr(self, name)} is negative")
        require((self.decoding_processes or 0) >= 0, f"decoding_processes: {self.decoding_processes} is negative")
        require(self.prefetch_batches >= 1, "prefetch_batches: at least 1 is needed")
        minutes = self.checkpoint_minutes
        require(minutes is None or 0 < minutes < math.inf, f"checkpoint_minutes: {minutes} is not positive and finite")


MOST_SIGNAL = 0.01
"""Largest gamma_T that training accepts: a tenth of the image's amplitude. The paper's schedule has 4e-5."""

_POSITIVE = (
    *("batch_size", "num_steps", "num_lanes", "shuffle_window", "num_micro_batches", "num_validation_images"),
    *("validation_every", "checkpoint_every", "keep_checkpoints", "log_every"),
)
"""Fields of TrainConfig that must be at least 1."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """Training of one stage."""

    name: str
    """Name of the stage, and of its folder in the run."""
    model: ModelConfig
    """The model to train."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """Optimiser and learning rate."""
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    """Random variations of the training images."""
    degradation: DegradationConfig = field(default_factory=DegradationConfig, metadata=ADDED)
    """Random degradations by which low-resolution images are made of the targets in training, in place of the prepared
    ones: for a model of real inputs, which are noisy, compressed and out of focus."""
    batch_size: int = 256
    """Samples in a global batch, over all workers together."""
    num_steps: int = 1_000_000
    """Optimiser steps."""
    seed: int = 0
    """Seed for initial weights, data order, noise and augmentation."""
    initial_weights: str = field(default="", metadata=ADDED)
    """SHA-256 of the file of weights that training starts from, which --from fills in; empty starts from random
    ones."""
    num_lanes: int = 64
    """Parts that the data order is cut into, a power of two; the workers share them as evenly as possible."""
    shuffle_window: int = 4096
    """Window of neighbouring samples within which a lane shuffles."""
    block_boundaries: BlockBoundaries = field(default="aligned", metadata=ADDED)
    """When lanes begin a new window, and so new shards: all at once (aligned), or one after another (staggered), which
    spreads the downloads from a bucket evenly over time. Either is an order of its own."""
    precision: Precision = "float32"
    """Arithmetic: tf32 rounds what a GPU multiplies to TensorFloat-32, 3 to 8 times as fast as float32 there; bfloat16
    uses autocast in the forward pass. Weights and optimiser stay float32."""
    all_reduce: AllReduce = field(default="float32", metadata=ADDED)
    """Type in which GPUs exchange gradients; bfloat16 halves what a slow network between nodes has to carry."""
    num_micro_batches: int = field(default=1, metadata=PLACEMENT)
    """Micro-batches that a worker splits its batch into to save memory; gradients accumulate over them."""
    validation_every: int = 5_000
    """Steps between validations."""
    num_validation_images: int = 256
    """Held-out images that a validation computes the loss on (for regression also the PSNR)."""
    checkpoint_every: int = field(default=5_000, metadata=PLACEMENT)
    """Steps between checkpoints."""
    keep_checkpoints: int = field(default=3, metadata=PLACEMENT)
    """Number of newest checkpoints to keep."""
    milestone_every: int | None = field(default=None, metadata=PLACEMENT)
    """Keep checkpoints at multiples of this many steps for ever; None keeps no milestones."""
    sample_every: int | None = field(default=None, metadata=PLACEMENT)
    """Draw a grid of held-out samples for checkpoints at multiples of this many steps: on CPUs in parallel to the
    training, on GPUs by worker 0 between two steps. None draws none."""
    log_every: int = field(default=50, metadata=PLACEMENT)
    """Steps between lines in metrics.jsonl."""
    placement: PlacementConfig = field(default_factory=PlacementConfig, metadata=PLACEMENT)
    """Where and how fast it runs."""

    def __post_init__(self) -> None:
        require(bool(re.fullmatch(r"[A-Za-z0-9][\w.-]*", self.name)), f"name: {self.name!r} is not a plain folder name")
        for name in _POSITIVE:
            require(getattr(self, name) >= 1, f"{name}: {getattr(self, name)} is not positive")
        require(self.num_lanes & (self.num_lanes - 1) == 0, f"num_lanes: {self.num_lanes} is not a power of two")
        require(
            self.batch_size % self.num_lanes == 0,
            f"batch_size: {self.batch_size} is not a multiple of num_lanes {self.num_lanes}; take one, such as"
            f" `--batch-size {max(1, round(self.batch_size / self.num_lanes)) * self.num_lanes}`",
        )
        workers = max(self.placement.num_workers, 1)
        require(
            workers <= self.num_lanes,
            f"placement.num_workers: {workers} is more than num_lanes {self.num_lanes}: workers cannot share a lane;"
            " lower num_workers, or start a run with more lanes",
        )
        fewest = self.num_lanes // workers * (self.batch_size // self.num_lanes)
        require(
            self.num_micro_batches <= fewest,
            f"num_micro_batches: {self.num_micro_batches} is more than the {fewest} samples of a worker",
        )
        require(
            self.all_reduce == "float32" or self.placement.use_gpu or workers == 1,
            f"all_reduce: {self.all_reduce} needs GPUs (placement.use_gpu); CPUs exchange gradients in float32",
        )
        for name in ("milestone_every", "sample_every"):
            every = getattr(self, name)
            require(
                every is None or (every >= 1 and every % self.checkpoint_every == 0),
                f"{name}: {every} is not a multiple of checkpoint_every {self.checkpoint_every}",
            )
        require(
            self.model.kind != "base" or self.augmentation.blur_probability == 0,
            "augmentation.blur_probability: a base model has no low-resolution image to blur",
        )
        require(
            not self.augmentation.quarter_turns or isinstance(self.model.high_size, int),
            f"augmentation.quarter_turns: images of {describe(self.model.high_size)} pixels turned have other sides;"
            " take flips alone, or a square stage",
        )
        self._check_degradation()

    def _check_degradation(self) -> None:
        if self.degradation.order == 0:
            return
        require(self.model.low_size is not None, "degradation.order: a base model has no low-resolution image")
        require(
            self.augmentation.blur_probability == 0,
            f"augmentation.blur_probability: {self.augmentation.blur_probability} has no effect with degradation.order"
            f" {self.degradation.order}, which blurs too; take 0",
        )
        require(
            self.model.crop_size is None,
            f"degradation.order: {self.degradation.order} makes inputs of whole targets, but the stage trains on crops"
            f" (model.unet.image_size {self.model.unet.image_size}); prepare crops of that size (`sr3 prepare"
            " --crop native`) for a stage that trains on whole ones",
        )
        self.degradation.check_size(self.model.high_size)

    @property
    def data_stage(self) -> str:
        """Name of the prepared stage to train on: a folder in the prepared data."""
        return stage_name(self.model.low_size, self.model.high_size)


@dataclass(frozen=True, kw_only=True, slots=True)
class RunConfig:
    """Stages that are trained in parallel; see pipelines/settings/presets.py."""

    name: str
    """Name of the preset."""
    stages: tuple[TrainConfig, ...]
    """Stages, trained independently of each other. SR3 stages of successive sizes form a cascade; a base model starts
    it."""
    samples: dict[str, SampleSpec] = field(default_factory=dict, metadata=ADDED)
    """Of fields: the channels of each prepared stage, with the statistics by which they are standardised. Filled in
    when the run is created."""

    def __post_init__(self) -> None:
        names = [stage.name for stage in self.stages]
        require(len(names) >= 1, "stages: at least one is needed")
        require(len(set(names)) == len(names), f"stages: the names {names} are not all different")
        bases = [stage for stage in self.stages if stage.model.kind == "base"]
        require(len(bases) <= 1, f"stages: {[stage.name for stage in bases]} are base models; a run holds at most one")
        chain = sorted((s for s in self.stages if s.model.kind == "sr3"), key=lambda s: num_pixels(s.model.low_size))
        if bases and chain:
            made, wanted = bases[0].model.high_size, chain[0].model.low_size
            message = (
                f"{bases[0].name} ends at {describe(made)} pixels, but {chain[0].name} starts at {describe(wanted)}"
            )
            require(made == wanted, f"stages: {message}; a cascade needs them equal")

    def check_ends(self) -> None:
        """Check that only noise is left at the end of each stage's noise schedule: sampling starts from noise.

        Raises:
            ConfigError: gamma_T is more than MOST_SIGNAL; names the beta_last that would do.
        """
        for stage in self.stages:
            schedule = stage.model.noise_schedule
            signal = 0.0 if stage.model.kind == "regression" else schedule.last_gamma
            enough = -2.05 * math.log(MOST_SIGNAL) / schedule.num_steps  # about: the levels are the product of 1 - beta
            require(
                signal <= MOST_SIGNAL,
                f"{stage.name}.model.noise_schedule: with num_steps {schedule.num_steps} and beta_last"
                f" {schedule.beta_last:g}, gamma_T is {signal:.2g}: y_T still shows the image, but sampling starts from"
                f" noise alone; take beta_last {min(enough, 0.99):.2g}, more steps or the cosine family",
            )

    def check_trainable(self) -> None:
        """Check that every stage's network is one of Figure A.1.

        Raises:
            ConfigError: one is imported.
        """
        for stage in self.stages:
            require(
                not stage.model.unet.is_imported,
                f"{stage.name}.model.unet.architecture: networks of {stage.model.unet.architecture} are imported to"
                " sample with, and cannot be trained here; use sr3",
            )

    def check_origins(self) -> None:
        """Check that every stage whose chain starts from a regression can have one trained; a model needs none.

        Raises:
            ConfigError: the run holds no regression baseline of its sizes, or several.
        """
        for stage in self.stages:
            if stage.model.objective.residual == "regression":
                found = [other for other in self.stages if is_mean_of(other, stage)]
                require(
                    len(found) == 1,
                    f"{stage.name}.model.objective.residual: regression needs one regression baseline of"
                    f" {stage.data_stage} in the run; there are {len(found)}",
                )
                _check_same_network(found[0], stage)


def _check_same_network(baseline: TrainConfig, stage: TrainConfig) -> None:
    """The stage loads the baseline's weights into a network like its own."""
    only_trained = {"dropout": 0.0, "branch_init": 0.0}
    theirs, ours = (to_dict(replace(each.model.unet, **only_trained)) for each in (baseline, stage))
    changed = differences(theirs, ours, "model.unet")
    require(
        not changed,
        f"{stage.name}: its chain starts from {baseline.name}, whose network is another one ({'; '.join(changed)});"
        " give both the same",
    )


def is_mean_of(baseline: TrainConfig, stage: TrainConfig) -> bool:
    """Whether a stage is the regression baseline that another one's chain starts from."""
    residual = stage.model.objective.residual
    return residual == "regression" and baseline.model.kind == "regression" and baseline.data_stage == stage.data_stage
