"""The prepared data that a run was trained on: whether they hold what a command needs, and where they were moved to.

RUN/config.json remembers the place, for every command and for the processes that it starts elsewhere. `--data NEW`
changes it, once: the fingerprints of the stages that the run was trained on say whether these are the data. Of a
mixture, all folders are named, in the order in which they were; their weights may be left out.
"""

from dataclasses import replace
from shlex import quote

from pipelines.runs.run_folder import Run, write_atomic
from pipelines.settings.mixtures import describe_data, mixture_of, parts_of
from pipelines.shards.manifest import MANIFEST, require_images
from pipelines.shards.mixtures import absolute_data, stage_fingerprint
from pipelines.storage.uris import exists, join
from sr3core import strict_json
from sr3core.config import differences
from sr3core.errors import DataError
from sr3core.samples.spec import SampleSpec


def with_data(run: Run, data: str | None) -> Run:
    """The run with its data elsewhere; None leaves them where they were.

    Raises:
        DataError: there are no prepared data at the new place, or not those that the run was trained on.
    """
    if data is None:
        return run
    data = _with_weights_of(run, absolute_data(data))
    found = {stage: stage_fingerprint(data, stage) for stage in run.data_fingerprints if _has_stage(data, stage)}
    changed = differences(run.data_fingerprints, found, "data")
    if changed:
        raise DataError(
            f"data: {describe_data(data)} does not hold what {run.location} was trained on ({'; '.join(changed)}); name"
            f" the folder that {describe_data(run.data)} was moved to, or train on these with `sr3 train`"
        )
    return replace(run, data=data)


def _with_weights_of(run: Run, data: str) -> str:
    """Folders without weights, with those of the run's mixture."""
    old, new = parts_of(run.data), parts_of(data)
    if len(old) != len(new) or any(part.weight for part in new):
        return data
    return mixture_of([replace(part, weight=known.weight) for part, known in zip(new, old, strict=True)])


def _has_stage(data: str, stage: str) -> bool:
    return all(exists(join(part.folder, stage, MANIFEST)) for part in parts_of(data))


def remember_data(run: Run) -> None:
    """Let every later command find the run's data where this one found them."""
    path = run.path / "config.json"
    content = strict_json.loads(path.read_bytes())
    if content["data"] != run.data:
        write_atomic(path, strict_json.dumps(content | {"data": run.data}, indent=1))
        if run.bucket is not None:
            run.bucket.push(path)


def require_data(run: Run, stage: str, split: str, num_images: int = 1, fields: bool = False) -> None:
    """Check that a stage of the run's data is there with enough images; of a mixture, in each of its preparations.

    With `fields`, the samples may be fields.

    Raises:
        DataError: the data were moved, lack the stage, have too few images in the split, or are fields; says what to
            do.
    """
    if not run.data:
        raise DataError(
            f"{run.location} is an exported model, which names no data; prepare images with `--stages {stage}`, and"
            " repeat the command with `--data` and their folder, once: the model remembers it"
        )
    for part in parts_of(run.data):
        sample = _require_part(run, part.folder, stage, split, num_images)
        if sample is not None and not fields:
            raise DataError(
                f"{join(part.folder, stage)} holds fields: this command is for images. `sr3 train fields` trains on"
                " fields, `sr3 upscale` makes ensembles of them, and `sr3 evaluate` scores these"
            )


def _renamed(data: str, moved: str) -> str:
    """What to type after `--data` if one of the folders is elsewhere."""
    return " ".join("NEW_FOLDER" if part.folder == moved else quote(part.folder) for part in parts_of(data))


def _require_part(run: Run, data: str, stage: str, split: str, num_images: int) -> SampleSpec | None:
    directory = join(data, stage)
    if not exists(data):
        raise DataError(
            f"{run.location} was trained on {data}, which does not exist; if the data were moved, repeat the"
            f" command with `--data {_renamed(run.data, data)}`, once: the run remembers it. Otherwise prepare the same"
            " images there again"
        )
    if not exists(join(directory, MANIFEST)):
        stages = ",".join(sorted({*run.data_fingerprints, stage}))
        raise DataError(
            f"{data} holds no complete stage {stage}, on which {run.location} is measured; prepare the same images"
            f" with `--stages {stages}` into another --out, and repeat the command with `--data` and that folder"
        )
    return require_images(directory, split, num_images).sample
