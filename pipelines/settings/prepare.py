"""Settings of `sr3 prepare`: how images become WebDataset shards."""

from dataclasses import dataclass, field
from typing import Literal

from pipelines.settings.locations import Location
from pipelines.settings.stages import StageSpec, parse_stages
from sr3core.config import PLACEMENT
from sr3core.hyperparameters import require

Layout = Literal["auto", "folder", "imagefolder", "ffhq", "imagenet", "celebahq", "zip", "tar", "parquet"]


@dataclass(frozen=True, kw_only=True, slots=True)
class PrepareConfig:
    """How images become WebDataset shards: `sr3 prepare`."""

    source: Location = field(metadata=PLACEMENT)
    """Folder, zip, tar or parquet of images, on disk or at s3://bucket/prefix."""
    out: Location = field(metadata=PLACEMENT)
    """Folder or s3:// prefix that receives a folder of shards a stage."""
    stages: tuple[str, ...]
    """LOW-HIGH sizes of super-resolution stages and base-SIZE of base models; one pass makes them all."""
    layout: Layout = "auto"
    """How source is laid out; auto looks. imagefolder is a folder a class, of any names, which auto takes for plain."""
    validation_fraction: float = 0.02
    """Share of the images held out for validation, chosen by a hash of their names."""
    test_fraction: float = 0.0
    """Share of the images held out for testing; the rest is for training."""
    samples_per_shard: int = 1000
    """Images planned a shard; what is rejected of them is missing in it."""
    image_format: Literal["png", "webp"] = "png"
    """Lossless format of the records: png is made faster, webp is smaller."""
    blur_variants: int = 0
    """Blurred copies of each low-resolution image that are baked into its record (section 4.3)."""
    blur_sigma_max: float = 1.0
    """Largest standard deviation of that blur, low-resolution pixels; each copy draws it from U(0, this)."""
    align_faces: bool = False
    """Cut the largest face out of each photo as FFHQ does, upright (needs the extra "align")."""
    keep_duplicates: bool = False
    """Keep images whose bytes are there under another name too, which can leak training into held-out data."""
    seed: int = 0
    """Decides splits, the order of images in shards, and blur."""
    num_workers: int | None = field(default=None, metadata=PLACEMENT)
    """Shards written at the same time, one CPU each; None takes every CPU of the cluster."""

    def __post_init__(self) -> None:
        parse_stages(",".join(self.stages))
        for name in ("validation_fraction", "test_fraction"):
            require(0 <= getattr(self, name) <= 1, f"{name}: {getattr(self, name)} is not in [0, 1]")
        held_out = self.validation_fraction + self.test_fraction
        require(held_out <= 1, f"validation_fraction, test_fraction: together {held_out}, more than 1")
        require(self.samples_per_shard >= 1, f"samples_per_shard: {self.samples_per_shard} is not positive")
        require(self.blur_variants >= 0, f"blur_variants: {self.blur_variants} is negative")
        require(self.blur_sigma_max > 0, f"blur_sigma_max: {self.blur_sigma_max} is not positive")
        require(self.num_workers is None or self.num_workers >= 1, f"num_workers: {self.num_workers} is not positive")
        require(bool(self.source), "source: empty; name a folder, archive or s3:// prefix of images")
        require(bool(self.out), "out: empty; name a folder or s3:// prefix for the shards")

    @property
    def stage_specs(self) -> tuple[StageSpec, ...]:
        """The stages, read."""
        return parse_stages(",".join(self.stages))
