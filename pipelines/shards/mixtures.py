"""A stage of prepared data that may be a mixture: its folders, their manifests and shares, and its fingerprint."""

from dataclasses import dataclass, replace
from fractions import Fraction

from pipelines.settings.mixtures import mixture_of, parts_of, shares_of
from pipelines.shards.manifest import Manifest, load_manifest, require_images
from pipelines.storage.uris import absolute, join, name_of
from sr3core.errors import DataError


@dataclass(frozen=True, slots=True)
class PreparedStage:
    """A stage in one of the preparations of a mixture."""

    directory: str
    """Its folder."""
    manifest: Manifest
    """What is in it."""
    share: int
    """Samples that it gives to a period of the mixture; 1 if it is the only one."""


def load_stages(data: str, stage: str) -> tuple[PreparedStage, ...]:
    """A stage in each of the preparations of a run's data.

    Raises:
        DataError: one of them lacks it.
    """
    parts = parts_of(data)
    directories = [join(part.folder, stage) for part in parts]
    manifests = [load_manifest(directory) for directory in directories]
    if len(parts) == 1:
        shares: tuple[int, ...] = (1,)
    elif parts[0].weight:
        shares = shares_of([Fraction(part.weight) for part in parts])
    else:
        for directory in directories:
            require_images(directory, "train")
        shares = shares_of([Fraction(manifest.num_samples("train")) for manifest in manifests])
    return tuple(PreparedStage(*part) for part in zip(directories, manifests, shares, strict=True))


def operator_of(data: str, stage: str) -> str | None:
    """What made a stage's low-resolution images; None if those of one of the preparations were given.

    Raises:
        DataError: it has not been prepared.
    """
    operators = [part.manifest.operator for part in load_stages(data, stage)]
    return None if None in operators else operators[0]


def stage_fingerprint(data: str, stage: str) -> str:
    """Fingerprint of a prepared stage; of a mixture, each one's with its share.

    Raises:
        DataError: it has not been prepared.
    """
    stages = load_stages(data, stage)
    if len(stages) == 1:
        return stages[0].manifest.fingerprint
    period = sum(part.share for part in stages)
    return " + ".join(f"{part.share}/{period} of {part.manifest.fingerprint}" for part in stages)


def require_everywhere(data: str, stage: str, split: str) -> None:
    """Check that a split holds images in each of the preparations.

    Raises:
        DataError: it does not; names the folder.
    """
    for part in parts_of(data):
        require_images(join(part.folder, stage), split)


def check_classes_agree(stages: tuple[PreparedStage, ...], name: str) -> None:
    """Check, for a model with classes, that the preparations number the same classes.

    Raises:
        DataError: they have different numbers of classes.
    """
    counts = {part.directory: part.manifest.num_classes for part in stages}
    if len(set(counts.values())) > 1:
        found = " and ".join(f"{directory} holds {count} classes" for directory, count in counts.items())
        raise DataError(
            f"data: {found}, so that a class of stage {name} would mean one thing in one and another in the other;"
            " prepare all of them from folders of the same classes"
        )


def absolute_data(data: str) -> str:
    """The data with folders that do not depend on the working directory."""
    return mixture_of([replace(part, folder=absolute(part.folder)) for part in parts_of(data)])


def data_names(data: str) -> tuple[str, ...]:
    """A short name for each preparation, no two the same: its folder's, with a number where two have the same."""
    names = [name_of(part.folder) for part in parts_of(data)]
    taken = {name for name in names if names.count(name) == 1}
    found = []
    for number, name in enumerate(names):
        own = name
        if names.count(name) > 1:
            own = f"{name}-{number}"
            while own in taken:  # a folder is called so
                own += f"-{number}"
            taken.add(own)
        found.append(own)
    return tuple(found)
