"""Settings of `sr3 prepare`: which images become WebDataset shards, and how."""

from dataclasses import dataclass, field
from typing import Literal

from pipelines.settings.fields import FieldSettings
from pipelines.settings.locations import Location
from pipelines.settings.stages import StageSpec, parse_stages
from sr3core.config import ADDED, PLACEMENT, PRESENCE
from sr3core.errors import ConfigError
from sr3core.hyperparameters import require
from sr3core.sizes import num_pixels

Crop = Literal["square", "native"]
Layout = Literal["auto", "folder", "imagefolder", "ffhq", "imagenet", "celebahq", "zip", "tar", "parquet", "tiff"]

_PERCENT_OF_PIXELS = {"png": 55, "webp": 35}
_HEADER_BYTES = 4096

STORE_SUFFIXES = (".zarr", ".nc", ".nc4", ".cdf", ".netcdf", ".npy", ".npz", ".tif", ".tiff")
"""What the names of stores of arrays end in; images are in folders and archives."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PrepareConfig(FieldSettings):
    """How images become WebDataset shards: `sr3 prepare`."""

    source: Location = field(metadata=PLACEMENT)
    """Images to prepare: a folder, zip, tar or parquet file, on disk or at s3://bucket/prefix. Or fields: a .zarr,
    NetCDF (.nc), .npy, .npz or .tif, or with --layout tiff a folder of TIFF of any depth."""
    out: Location = field(metadata=PLACEMENT)
    """Output folder or s3:// prefix; each stage gets a folder of shards in it."""
    stages: tuple[str, ...]
    """Sizes to prepare: LOW-HIGH for super-resolution stages, base-SIZE for base models. One pass makes them all."""
    layout: Layout = "auto"
    """Layout of the source; auto detects it. imagefolder takes each top folder as a class, which auto never assumes;
    nor does it take a folder of TIFF as tiff: any bands of any depth, in their own units."""
    validation_fraction: float = 0.02
    """Fraction of the images held out for validation, chosen by a hash of their names."""
    test_fraction: float = 0.0
    """Fraction of the images held out for testing; the rest is for training."""
    crop: Crop = field(default="square", metadata=ADDED)
    """square: an image's largest central square, shrunk to the stage's size, as in the paper. native: crops of the
    stage's size at the photo's own resolution, for enlarging photos beyond it. Given pairs are always cut so."""
    crops_per_image: int = field(default=1, metadata=ADDED)
    """Native crops of each image, all at different places; a small image gives fewer if it has no more places."""
    max_flat: float = field(default=1.0, metadata=ADDED)
    """Largest share of an image's native crops, rounded down, that may be flat: skies, walls, what is out of focus."""
    low: Location | None = field(default=None, metadata=PRESENCE)
    """The images' given low-resolution images: a folder, zip, tar or parquet file, on disk or at s3://bucket/prefix.
    Pairs have one name but for the extension. Without it, low-resolution images are made by bicubic interpolation."""
    low_column: str = field(default="", metadata=ADDED)
    """Column of the low-resolution images in parquet files: those of `low`, or without it those of the source."""
    low_suffix: str = field(default="", metadata=ADDED)
    """What the names of low-resolution images end in before the extension: x4 pairs 0001x4.png with 0001.png."""
    high_suffix: str = field(default="", metadata=ADDED)
    """What the names of the images of the source end in before the extension: HR pairs 1_HR.png with 1_LR.png."""
    max_shift: float = field(default=0.5, metadata=ADDED)
    """Largest shift of a given low-resolution image against its high-resolution one, in low-resolution pixels."""
    samples_per_shard: int = 1000
    """Samples planned for each shard at most; a shard holds fewer where images are rejected."""
    shard_bytes: int = field(default=256_000_000, metadata=ADDED)
    """Bytes planned for each shard at most, by what images of the stages' sizes usually take; 0 for any number."""
    image_format: Literal["png", "webp"] = "png"
    """Lossless format of the images in shards: png is faster to write, webp is smaller."""
    blur_variants: int = 0
    """Blurred copies of each low-resolution image to store in its record (section 4.3)."""
    blur_sigma_max: float = 1.0
    """Largest standard deviation of that blur, in low-resolution pixels; each copy draws its own from U(0, this)."""
    align_faces: bool = False
    """Crop and align the largest face of each photo as FFHQ does (needs the extra "align")."""
    image_column: str = field(default="", metadata=ADDED)
    """Column of the images in parquet files, needed where several columns hold images."""
    label_column: str = field(default="", metadata=ADDED)
    """Column of the classes in parquet files: label, cls or class by default; none ignores the labels of archives."""
    group_tars: bool = field(default=False, metadata=ADDED)
    """Keep images that lie side by side in a tar in one shard, and read them with one request: each tar is read once.
    Without it a hash of its name alone decides an image's shard, and each image of a tar is a request."""
    keep_duplicates: bool = False
    """Keep images with identical bytes under several names; this can leak held-out images into training."""
    seed: int = 0
    """Seed for the splits, the order of images in shards, and the blur."""
    image_seconds: float = field(default=300.0, metadata=PLACEMENT)
    """Longest that decoding one image may take; an image that takes longer is rejected as crashed."""
    image_bytes: int = field(default=2**33, metadata=PLACEMENT)
    """Memory that decoding one image may take; the largest image that is decoded at all takes 6 GB at most."""
    num_workers: int | None = field(default=None, metadata=PLACEMENT)
    """Shards written in parallel, one CPU each; None uses every CPU of the cluster."""

    def __post_init__(self) -> None:
        parse_stages(",".join(self.stages))
        for name in ("validation_fraction", "test_fraction"):
            require(0 <= getattr(self, name) <= 1, f"{name}: {getattr(self, name)} is not in [0, 1]")
        held_out = self.validation_fraction + self.test_fraction
        require(held_out <= 1, f"validation_fraction, test_fraction: together {held_out}, more than 1")
        require(self.samples_per_shard >= 1, f"samples_per_shard: {self.samples_per_shard} is not positive")
        require(self.shard_bytes >= 0, f"shard_bytes: {self.shard_bytes} is negative")
        self._check_fields()
        self._check_crops()
        require(self.blur_variants >= 0, f"blur_variants: {self.blur_variants} is negative")
        require(self.blur_sigma_max > 0, f"blur_sigma_max: {self.blur_sigma_max} is not positive")
        require(self.image_seconds > 0, f"image_seconds: {self.image_seconds} is not positive")
        require(self.image_bytes > 0, f"image_bytes: {self.image_bytes} is not positive")
        require(self.num_workers is None or self.num_workers >= 1, f"num_workers: {self.num_workers} is not positive")
        self._check_pairs()
        require(bool(self.source), "source: empty; give a folder, archive or s3:// prefix of images")
        require(bool(self.out), "out: empty; give a folder or s3:// prefix for the shards")

    def _check_fields(self) -> None:
        if not self.has_fields:
            for name in self.has_field_options():
                raise ConfigError(
                    f"{name}: it is for stores of arrays, and by its name {self.source!r} is none; folders of rasters"
                    " need --layout tiff"
                )
            return
        self.check_fields()
        require(len(self.stages) == 1, f"stages: {self.stages}; a store is prepared for one")
        require(self.stage_specs[0].low_size is not None, "stages: base models are of RGB images")
        require(
            not (self.coarsen and self.low), f"low: {self.low}, but --coarsen makes the input; leave one of them out"
        )
        require(self.blur_variants == 0, "blur_variants: blur is for images; leave it out")
        require(not self.align_faces, "align_faces: it is for photos; leave it out")
        require(self.max_flat == 1, "max_flat: it is for images; leave it out")

    def _check_crops(self) -> None:
        require(self.crops_per_image >= 1, f"crops_per_image: {self.crops_per_image} is not positive")
        require(0 <= self.max_flat <= 1, f"max_flat: {self.max_flat} is not in [0, 1]")
        if not (self.cuts_natively or self.has_fields):
            for name, unused in (("crops_per_image", 1), ("max_flat", 1.0)):
                value = getattr(self, name)
                require(value == unused, f"{name}: {value} is for native crops; add --crop native")
        else:
            require(
                not self.align_faces,
                "align_faces: it resamples photos, and native crops and pairs keep their pixels; use one",
            )

    def _check_pairs(self) -> None:
        require(self.max_shift > 0, f"max_shift: {self.max_shift} is not positive")
        if not self.has_pairs:
            for name in ("low_suffix", "high_suffix"):
                require(not getattr(self, name), f"{name}: {getattr(self, name)!r} is for pairs; add --low")
            return
        scales = {spec.name: spec.scale for spec in self.stage_specs if spec.scale is not None}
        require(bool(scales), f"low: {self.stages} need no low-resolution images; leave it out")
        require(
            len(set(scales.values())) == 1,
            f"stages: {', '.join(scales)} are of several scales, and given pairs have one; prepare each into its own"
            " --out",
        )

    @property
    def has_fields(self) -> bool:
        """Whether the source is a store of arrays, and no collection of images."""
        name = self.source.rstrip("/").lower()
        return self.layout == "tiff" or name.endswith(STORE_SUFFIXES)

    @property
    def has_pairs(self) -> bool:
        """Whether low-resolution images are given, and not made."""
        return bool(self.low or self.low_column)

    @property
    def cuts_natively(self) -> bool:
        """Whether records are crops at the images' own resolution: given pairs cannot be resized."""
        return self.crop == "native" or self.has_pairs

    @property
    def images_per_shard(self) -> int:
        """Images planned for each shard: it holds about samples_per_shard samples, or fewer of about shard_bytes."""
        few = self.shard_bytes // self.bytes_per_sample if self.shard_bytes else self.samples_per_shard
        return max(1, min(self.samples_per_shard, few) // self.crops_per_image)

    @property
    def bytes_per_sample(self) -> int:
        """About what a sample of the largest stage takes in a shard.

        A plan is made before any image is decoded, so this is a function of the settings alone: so many percent of the
        pixels' bytes, as portraits take, and the tar's headers. Noise takes up to twice as much.
        """
        pixels = (num_pixels(s.high_size) + (1 + self.blur_variants) * num_pixels(s.low_size) for s in self.stage_specs)
        return _HEADER_BYTES + 3 * max(pixels) * _PERCENT_OF_PIXELS[self.image_format] // 100

    @property
    def stage_specs(self) -> tuple[StageSpec, ...]:
        """The parsed stages."""
        return parse_stages(",".join(self.stages))
