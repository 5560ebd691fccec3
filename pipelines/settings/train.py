"""Settings of `sr3 train`: a stage's training, where it runs, and the stages of a run."""

import re
from dataclasses import dataclass, field
from typing import Literal

from pipelines.settings.locations import Location
from sr3core.config import PLACEMENT
from sr3core.hyperparameters import AugmentationConfig, ModelConfig, OptimizerConfig, require

Tracker = Literal["tensorboard", "mlflow", "wandb"]


@dataclass(frozen=True, kw_only=True, slots=True)
class PlacementConfig:
    """Where and how fast a stage trains; nothing here changes what is computed, so no fingerprint holds it."""

    num_workers: int = 1
    """DDP workers, at most num_lanes. 0 trains in the calling process, for tests and debugging."""
    min_workers: int | None = None
    """Elastic: where nodes are lost, go on with as few as this and grow again to num_workers; None waits for all."""
    use_gpu: bool = False
    """One GPU a worker."""
    cpus_per_worker: float = 1.0
    """CPUs that Ray reserves for a worker; a worker computes with this many threads, at least one."""
    resources: dict[str, float] = field(default_factory=dict)
    """Other resources that Ray reserves for a worker, by name, such as a custom one of some nodes of the cluster."""
    wait_seconds: float = 1800.0
    """How long to wait for nodes that a cluster does not have yet, so that its autoscaler can add them. Other jobs are
    waited for without limit; a Ray that the command starts itself gets no nodes, and is not waited for."""
    max_failures: int = 3
    """Times that a stage may lose workers and go on from its newest checkpoint before it fails."""
    prefetch_batches: int = 4
    """Batches decoded ahead of the training step."""
    compile: bool = False
    """torch.compile the network: minutes at the start, a faster step; where it fails, the network runs as it is."""
    recompute_activations: bool = False
    """Keep no activations inside residual blocks but compute them again in the backward pass: a third slower, for the
    stages whose images are too large for the memory."""
    trackers: tuple[Tracker, ...] = ("tensorboard",)
    """Who gets the metrics beside metrics.jsonl; mlflow and wandb are extras, set up by their own variables."""
    cache_folder: Location = "/tmp/sr3-shards"
    """Where a machine keeps shards that it read from a bucket."""
    cache_bytes: int = 50_000_000_000
    """How much it keeps; the least recently used shards go first."""

    def __post_init__(self) -> None:
        require(self.num_workers >= 0, f"num_workers: {self.num_workers} is negative")
        require(
            self.min_workers is None or 1 <= self.min_workers <= self.num_workers,
            f"min_workers: {self.min_workers} is not in 1..num_workers {self.num_workers}",
        )
        require(self.cpus_per_worker > 0, f"cpus_per_worker: {self.cpus_per_worker} is not positive")
        require(all(self.resources.values()), f"resources: {self.resources} holds a zero; leave it out")
        for name in ("wait_seconds", "max_failures", "cache_bytes"):
            require(getattr(self, name) >= 0, f"{name}: {getattr(self, name)} is negative")
        require(self.prefetch_batches >= 1, "prefetch_batches: at least 1 is needed")


_POSITIVE = (
    *("batch_size", "num_steps", "num_lanes", "shuffle_window", "num_micro_batches", "num_validation_images"),
    *("validation_every", "checkpoint_every", "keep_checkpoints", "log_every"),
)
"""Fields of TrainConfig that are at least 1."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """One stage's training run."""

    name: str
    """Name of the stage: the folder below the run's."""
    model: ModelConfig
    """What is trained."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """How."""
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    """On what variations of the data."""
    batch_size: int = 256
    """Samples in a global batch, whatever the number of workers."""
    num_steps: int = 1_000_000
    """Optimiser steps."""
    seed: int = 0
    """Of weights, order, noise and augmentation."""
    num_lanes: int = 64
    """Parts that the data order is cut into, a power of two; the workers share them as evenly as possible."""
    shuffle_window: int = 4096
    """Samples that a lane shuffles among one another."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """bfloat16: autocast in the forward pass; weights and optimiser stay float32."""
    num_micro_batches: int = field(default=1, metadata=PLACEMENT)
    """Parts that a worker's batch is cut into to save memory; gradients are accumulated over them."""
    validation_every: int = 5_000
    """Steps between held-out losses."""
    num_validation_images: int = 256
    """Held-out images of which the loss (and for regression the PSNR) is taken."""
    checkpoint_every: int = field(default=5_000, metadata=PLACEMENT)
    """Steps between checkpoints."""
    keep_checkpoints: int = field(default=3, metadata=PLACEMENT)
    """Newest checkpoints that are kept."""
    milestone_every: int | None = field(default=None, metadata=PLACEMENT)
    """Checkpoints at multiples of so many steps are kept for ever; None keeps no milestones."""
    sample_every: int | None = field(default=None, metadata=PLACEMENT)
    """Checkpoints at multiples of so many steps get a grid of held-out samples, drawn beside the training; None draws
    none."""
    log_every: int = field(default=50, metadata=PLACEMENT)
    """Steps between lines of metrics.jsonl."""
    placement: PlacementConfig = field(default_factory=PlacementConfig, metadata=PLACEMENT)
    """Where it runs."""

    def __post_init__(self) -> None:
        require(bool(re.fullmatch(r"[A-Za-z0-9][\w.-]*", self.name)), f"name: {self.name!r} is no plain folder name")
        for name in _POSITIVE:
            require(getattr(self, name) >= 1, f"{name}: {getattr(self, name)} is not positive")
        require(self.num_lanes & (self.num_lanes - 1) == 0, f"num_lanes: {self.num_lanes} is no power of two")
        require(
            self.batch_size % self.num_lanes == 0,
            f"batch_size: {self.batch_size} is not a multiple of num_lanes {self.num_lanes}",
        )
        workers = max(self.placement.num_workers, 1)
        require(
            workers <= self.num_lanes,
            f"placement.num_workers: {workers} is more than num_lanes {self.num_lanes}: a lane cannot be shared; lower"
            " num_workers, or start a run with more lanes",
        )
        fewest = self.num_lanes // workers * (self.batch_size // self.num_lanes)
        require(
            self.num_micro_batches <= fewest,
            f"num_micro_batches: {self.num_micro_batches} is more than the {fewest} samples of a worker",
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

    @property
    def data_stage(self) -> str:
        """Name of the prepared stage that it reads: the folder below the data's."""
        return f"{self.model.low_size or 'base'}-{self.model.high_size}"


@dataclass(frozen=True, kw_only=True, slots=True)
class RunConfig:
    """Stages that are trained side by side: a preset of pipelines/settings/presets.py."""

    name: str
    """Name of the preset."""
    stages: tuple[TrainConfig, ...]
    """Independent of one another; SR3 stages whose sizes follow one another make a cascade, a base model starts it."""

    def __post_init__(self) -> None:
        names = [stage.name for stage in self.stages]
        require(len(names) >= 1, "stages: at least one is needed")
        require(len(set(names)) == len(names), f"stages: names {names} are not all different")
        bases = [stage for stage in self.stages if stage.model.kind == "base"]
        require(len(bases) <= 1, f"stages: {[stage.name for stage in bases]} are base models; a run holds one")
        chain = sorted((s for s in self.stages if s.model.kind == "sr3"), key=lambda s: s.model.low_size or 0)
        if bases and chain:
            made, wanted = bases[0].model.high_size, chain[0].model.low_size
            message = f"{bases[0].name} ends at {made} pixels, but {chain[0].name} starts at {wanted}"
            require(made == wanted, f"stages: {message}; a cascade needs them equal")
