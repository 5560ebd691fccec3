"""What a stage's folder holds: its manifest.json, and an index beside each shard that marks the shard complete."""

from collections import Counter
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from pipelines.images.rejects import Reject, RejectReason
from pipelines.settings.stages import StageSpec
from pipelines.storage.uris import exists, join, write_atomic
from pipelines.storage.versioned_json import JsonFormat
from sr3core.config import from_dict
from sr3core.errors import DataError
from sr3core.samples.spec import SampleSpec

FORMAT_VERSION = 1
"""Version of manifests, indices and plans of images; loaders refuse any other."""

FIELDS_VERSION = 2
"""Version of manifests of fields, which state their channels; earlier programs would take them for images."""

MAX_NAMED_REJECTS = 1000
"""Rejects that a manifest names; rejects.jsonl beside it names them all."""

MADE_BY = "bicubic"
"""What makes low-resolution images unless they are given: antialiased bicubic interpolation."""

MANIFEST, REJECTS = "manifest.json", "rejects.jsonl"

_MANIFEST_FORMAT = JsonFormat(
    title="manifest",
    version=FORMAT_VERSION,
    also_read=(FIELDS_VERSION,),
    if_damaged="delete it and run `sr3 prepare` again",
    if_other_version="prepare the images again, into another --out",
)
_INDEX_FORMAT = replace(_MANIFEST_FORMAT, title="index", also_read=())


@dataclass(frozen=True, slots=True)
class ShardEntry:
    """One shard of a split."""

    name: str
    """File name, such as train-000000.tar."""
    num_samples: int
    """Samples in it."""
    num_bytes: int
    """Size of the tar."""
    sha256: str
    """SHA-256 of the tar."""


@dataclass(frozen=True, slots=True)
class ShardIndex:
    """The index of a shard: where each sample lies, and which images are not in it."""

    shard: str
    """File name of the tar."""
    fingerprint: str
    """Fingerprint of the configuration that made it."""
    plan: str
    """Fingerprint of the images that were planned for it."""
    num_bytes: int
    """Size of the tar; 0 if every image was rejected, in which case there is no tar."""
    sha256: str
    """SHA-256 of the tar."""
    keys: tuple[str, ...] = ()
    """Keys of the samples, in order."""
    members: tuple[dict[str, tuple[int, int]], ...] = ()
    """For each sample: member name without the key -> (offset, size) in the tar."""
    digests: tuple[str, ...] = ()
    """For each sample: SHA-256 of the source image's bytes."""
    names: tuple[str, ...] = ()
    """For each sample: the source image's name; native crops of one image have the same."""
    labels: tuple[int | None, ...] = ()
    """For each sample: its class index, None if it has none. Shards written before labels were noted have None only."""
    rejects: tuple[Reject, ...] = ()
    """Images that were planned for the shard but rejected."""
    excluded: dict[str, str] = field(default_factory=dict)
    """Name of each duplicate that was left out -> name under which its bytes are kept."""
    statistics: dict[str, Any] | None = None
    """Of fields: counts, means and spreads of the channels; see pipelines.prepare.fields.measured."""

    @property
    def num_images(self) -> int:
        """Images of the source that are in the shard or were rejected."""
        return len(set(self.names)) + len(self.rejects)

    @property
    def entry(self) -> ShardEntry:
        """The shard's line in the manifest."""
        return ShardEntry(self.shard, len(self.keys), self.num_bytes, self.sha256)


@dataclass(frozen=True, slots=True)
class Manifest:
    """The manifest of a complete stage."""

    format_version: int
    """FORMAT_VERSION of the code that wrote it."""
    stage: StageSpec
    """The stage that the shards are for."""
    splits: dict[str, tuple[ShardEntry, ...]]
    """Shards of "train", "validation" and "test"; a split may be empty."""
    provenance: dict[str, Any]
    """Configuration, versions and parents; see pipelines.runtime.provenance."""
    fingerprint: str
    """Fingerprint of the configuration and of all additions to the source."""
    num_rejects: dict[str, int] = field(default_factory=dict)
    """Number of rejected images by reason code."""
    rejects: tuple[Reject, ...] = ()
    """The first MAX_NAMED_REJECTS rejected images."""
    num_classes: int = 0
    """The largest class index plus one; 0 if nothing is labelled."""
    num_unlabelled: int = 0
    """Samples without a class, or with a negative one, by which Hugging Face marks unlabelled images."""
    operator: str | None = MADE_BY
    """What made the low-resolution images of the high-resolution ones; None if they were given."""
    sample: SampleSpec | None = None
    """The channels of fields; None for RGB images of 8 bits."""

    def num_samples(self, split: str) -> int:
        """Number of samples in a split."""
        return sum(entry.num_samples for entry in self.splits.get(split, ()))


def load_manifest(directory: str) -> Manifest:
    """Read DIRECTORY/manifest.json.

    Raises:
        DataError: it is missing (the preparation has not finished), damaged, or of another format version.
    """
    path = join(directory, MANIFEST)
    if not exists(path):
        raise DataError(f"{directory} holds no {MANIFEST}: run `sr3 prepare` until it has finished")
    data = _MANIFEST_FORMAT.read(path)
    with _MANIFEST_FORMAT.decoding(path):
        return Manifest(
            format_version=data["format_version"],
            stage=from_dict(StageSpec, data["stage"]),
            splits={split: tuple(ShardEntry(**entry) for entry in data["splits"][split]) for split in data["splits"]},
            provenance=data["provenance"],
            fingerprint=data["fingerprint"],
            num_rejects=data["num_rejects"],
            rejects=tuple(_reject(row) for row in data["rejects"]),
            num_classes=data.get("num_classes", 0),
            num_unlabelled=data.get("num_unlabelled", 0),
            operator=data.get("operator", MADE_BY),
            sample=from_dict(SampleSpec, data["sample"]) if data.get("sample") else None,
        )


def require_images(directory: str, split: str, num_images: int = 1) -> Manifest:
    """Read the manifest of a stage whose split must hold some images.

    Raises:
        DataError: it holds fewer; names the option of `sr3 prepare` that helps. Or see load_manifest.
    """
    manifest = load_manifest(directory)
    found, total = manifest.num_samples(split), sum(map(manifest.num_samples, manifest.splits))
    if found < num_images:
        wanted = f"{num_images} are needed" if num_images > 1 else "one is needed at least"
        option = "more images" if split == "train" else f"a larger --{split}-fraction"
        raise DataError(
            f"{directory} holds {found or 'no'} {split} images of {total} in all, and {wanted}: prepare into another"
            f" --out with {option}"
        )
    return manifest


def save_manifest(directory: str, manifest: Manifest) -> None:
    """Write DIRECTORY/manifest.json, which completes the stage."""
    data = asdict(manifest)
    if manifest.operator == MADE_BY:
        del data["operator"]  # so that the bytes are those of earlier versions
    if manifest.sample is None:
        del data["sample"]
    write_atomic(join(directory, MANIFEST), _MANIFEST_FORMAT.encode(data))


def load_index(directory: str, shard: str) -> ShardIndex:
    """Read a shard's index.

    Raises:
        DataError: it is damaged or of another format version.
        StorageError: it does not exist.
    """
    path = index_path(directory, shard)
    data = _INDEX_FORMAT.read(path)
    with _INDEX_FORMAT.decoding(path):
        samples = data["samples"]
        return ShardIndex(
            shard=data["shard"],
            fingerprint=data["fingerprint"],
            plan=data["plan"],
            num_bytes=data["num_bytes"],
            sha256=data["sha256"],
            keys=tuple(sample["key"] for sample in samples),
            members=tuple({k: (v[0], v[1]) for k, v in sample["members"].items()} for sample in samples),
            digests=tuple(sample["digest"] for sample in samples),
            names=tuple(sample["name"] for sample in samples),
            labels=tuple(sample.get("label") for sample in samples),
            rejects=tuple(_reject(row) for row in data["rejects"]),
            excluded=dict(data["excluded"]),
            statistics=data.get("statistics"),
        )


def save_index(directory: str, index: ShardIndex) -> None:
    """Write a shard's index, which completes the shard; its tar must have been written."""
    rows = zip(index.keys, index.members, index.digests, index.names, index.labels, strict=True)
    data = {
        "shard": index.shard,
        "fingerprint": index.fingerprint,
        "plan": index.plan,
        "num_bytes": index.num_bytes,
        "sha256": index.sha256,
        "samples": [{"key": k, "members": m, "digest": d, "name": n, "label": c} for k, m, d, n, c in rows],
        "rejects": [asdict(reject) for reject in index.rejects],
        "excluded": index.excluded,
    }
    if index.statistics is not None:
        data["statistics"] = index.statistics
    write_atomic(index_path(directory, index.shard), _INDEX_FORMAT.encode(data, compact=True))


def index_path(directory: str, shard: str) -> str:
    """Path of a shard's index."""
    return join(directory, shard.removesuffix(".tar") + ".index.json")


def count_rejects(rejects: tuple[Reject, ...]) -> dict[str, int]:
    """Number of rejects for each reason."""
    return dict(sorted(Counter(reject.reason.value for reject in rejects).items()))


def _reject(row: dict[str, str]) -> Reject:
    return Reject(row["path"], RejectReason(row["reason"]), row["detail"])
