"""The prepared data that a run was trained on: whether they hold what a command needs, and where they were moved to.

RUN/config.json remembers the place, for every command and for the processes that it starts elsewhere. `--data NEW`
changes it, once: the fingerprints of the stages that the run was trained on say whether these are the data.
"""

from dataclasses import replace

from pipelines.runs.run_folder import Run, write_atomic
from pipelines.shards.manifest import MANIFEST, load_manifest, require_images
from pipelines.storage.uris import absolute, exists, join
from sr3core import strict_json
from sr3core.config import differences
from sr3core.errors import DataError


def with_data(run: Run, data: str | None) -> Run:
    """The run with its data elsewhere; None leaves them where they were.

    Raises:
        DataError: there are no prepared data at the new place, or not those that the run was trained on.
    """
    if data is None:
        return run
    data = absolute(data)
    found = {
        stage: load_manifest(join(data, stage)).fingerprint
        for stage in run.data_fingerprints
        if exists(join(data, stage, MANIFEST))
    }
    changed = differences(run.data_fingerprints, found, "data")
    if changed:
        raise DataError(
            f"data: {data} does not hold what {run.location} was trained on ({'; '.join(changed)}); name the folder"
            f" that {run.data} was moved to, or train on these with `sr3 train`"
        )
    return replace(run, data=data)


def remember_data(run: Run) -> None:
    """Let every later command find the run's data where this one found them."""
    path = run.path / "config.json"
    content = strict_json.loads(path.read_bytes())
    if content["data"] != run.data:
        write_atomic(path, strict_json.dumps(content | {"data": run.data}, indent=1))
        if run.bucket is not None:
            run.bucket.push(path)


def require_data(run: Run, stage: str, split: str, num_images: int = 1) -> str:
    """The folder of one of the prepared stages of the run's data, once it is certain that its images are there.

    Raises:
        DataError: the data were moved, lack the stage, or have too few images in the split; says what to do.
    """
    directory = join(run.data, stage)
    if not run.data:
        raise DataError(
            f"{run.location} is an exported model, which names no data; prepare images with `--stages {stage}`, and"
            " repeat the command with `--data` and their folder, once: the model remembers it"
        )
    if not exists(run.data):
        raise DataError(
            f"{run.location} was trained on {run.data}, which does not exist; if the data were moved, repeat the"
            " command with `--data NEW_FOLDER`, once: the run remembers it. Otherwise prepare the same images there"
            " again"
        )
    if not exists(join(directory, MANIFEST)):
        stages = ",".join(sorted({*run.data_fingerprints, stage}))
        raise DataError(
            f"{run.data} holds no complete stage {stage}, on which {run.location} is measured; prepare the same images"
            f" with `--stages {stages}` into another --out, and repeat the command with `--data` and that folder"
        )
    require_images(directory, split, num_images)
    return directory
