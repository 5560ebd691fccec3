"""What all trials share, and what is measured of a schedule's images."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Protocol

import numpy as np

from pipelines.ingest.fields.split import FieldSet
from sr3core.config import fingerprint_of, scientific
from sr3core.diffusion.schedules import InferenceSchedule
from sr3core.features.extractors import FeatureNetwork
from sr3core.hyperparameters import ModelConfig
from sr3core.networks.network import Network
from tune.search.objective.yardstick import Estimate
from tune.search.settings import ObjectiveWeights


@dataclass(frozen=True, eq=False, slots=True)
class FieldInputs:
    """Held-out samples of fields, and how their ensembles are made."""

    samples: FieldSet
    groups: np.ndarray
    """Number of each sample's block of time, (N,)."""
    members: int
    label: str
    """Name of the score."""


@dataclass(frozen=True, eq=False, slots=True)
class Task:
    """Everything that a trial needs; stored in the object store once, loaded once per actor."""

    model: ModelConfig
    network: Network
    """Weights to sample with, on the CPU."""
    mean: Network | None
    """The regression that the chain starts from, on the CPU; None without one."""
    feature_network: FeatureNetwork
    keys: tuple[str, ...]
    """Of the held-out images."""
    low: np.ndarray
    """(N, h, w, 3) uint8."""
    high: np.ndarray
    """(N, H, W, 3) uint8."""
    references: np.ndarray
    """Features of the images that outputs are compared with, (M, D): computed once."""
    paired: bool
    """Whether these are the originals of the inputs, in their order, or other images."""
    identity: str
    """Fingerprint of everything but the schedule that a measurement depends on."""
    cache: Path
    """Folder of measurements."""
    purpose: str
    """Names the noise: "search", or "confirmation" for fresh noise."""
    seed: int
    rungs: tuple[int, ...]
    estimates: tuple[Estimate, ...]
    """By what schedules are judged at each rung."""
    weights: ObjectiveWeights
    batch_size: int
    fields: FieldInputs | None = None
    """The samples, if the stage makes fields; low, high and references are empty then."""

    @property
    def groups(self) -> np.ndarray | None:
        """Number of each sample's group, (N,), whose samples are alike; None if all are independent."""
        return None if self.fields is None else self.fields.groups


class Compared(Protocol):
    """What a value of a set of images depends on, beside its measurements."""

    @property
    def groups(self) -> np.ndarray | None:
        """Number of each sample's group, (N,), whose samples are alike; None if all are independent."""
        ...

    @property
    def paired(self) -> bool:
        """Whether the references are the originals of the inputs, in their order, or other images."""
        ...

    @property
    def references(self) -> np.ndarray:
        """Features of the images that outputs are compared with, (M, D)."""
        ...

    @property
    def weights(self) -> ObjectiveWeights:
        """Of the estimate "weighted"."""
        ...


@dataclass(frozen=True, eq=False, slots=True)
class Measurements:
    """Measurements of some images with one schedule, in the order of the images."""

    features: np.ndarray
    """(n, D) float32. Of fields: CRPS and energy score, (n, 2), and the rest is not a number but for the time."""
    psnr: np.ndarray
    """(n,) dB."""
    ssim: np.ndarray
    """(n,)."""
    consistency: np.ndarray
    """(n,) in units of 1e-5."""
    seconds: np.ndarray
    """(n,) sampling time in seconds: a batch's, divided by its size."""

    @classmethod
    def join(cls, parts: "list[Measurements]") -> "Measurements":
        """Concatenate parts in order."""
        return cls(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)))

    def where(self, chosen: np.ndarray) -> "Measurements":
        """Those of the images where chosen, (n,) bool, is true."""
        return Measurements(*(getattr(self, field.name)[chosen] for field in fields(self)))


def measurement_path(task: Task, schedule: InferenceSchedule, first: int, last: int) -> Path:
    """File for measurements of images first..last-1."""
    return task.cache / task.identity / f"{schedule_fingerprint(schedule)}-{first}-{last}.npz"


def schedule_fingerprint(schedule: InferenceSchedule) -> str:
    """Identity of what a schedule does, regardless of its name and provenance."""
    return fingerprint_of({"gammas": list(schedule.gammas), "sampler": scientific(schedule.sampler)})
