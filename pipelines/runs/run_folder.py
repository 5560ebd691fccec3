"""The layout of a run folder, and opening what it holds.

RUN/config.json                 preset, every stage's configuration, data, provenance
RUN/<stage>/metrics.jsonl       losses and speeds
RUN/<stage>/incidents.jsonl     bad steps and their samples
RUN/<stage>/outcome.json        why the last command that trained it failed, if it did
RUN/<stage>/checkpoints/        sr3core.checkpoint's folders
RUN/<stage>/schedules/          inference schedules, best-<steps>.json from a search
"""

import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from shlex import quote
from typing import Any

from pipelines.runs.bucket_runs import BucketRun
from pipelines.runs.field_samples import with_samples
from pipelines.runs.hub_models import is_read_only, read_only_folder, read_only_location
from pipelines.runs.residual_scales import with_residual_scales
from pipelines.runs.stage_run import StageRun
from pipelines.runtime.provenance import provenance
from pipelines.settings.train import RunConfig
from pipelines.shards.mixtures import absolute_data, require_everywhere, stage_fingerprint
from pipelines.storage import uris
from pipelines.storage.local_files import describe_error
from pipelines.storage.uris import is_remote
from pipelines.storage.versioned_json import decoding
from sr3core import strict_json
from sr3core.config import did_you_mean, differences, from_dict, scientific, to_dict
from sr3core.errors import ConfigError, DataError, StorageError
from sr3core.sizes import num_pixels

RUN_FORMAT_VERSION = 1
RESULTS = (
    *(
        "samples",
        "generated",
        "evaluation.json",
        "field-evaluation.json",
        "table-3.json",
        "table-3.json.images",
        "table-4.json",
    ),
    *("ablation.json", "report.html"),
)
"""What commands derive from the checkpoints beside the stages' folders; starting a run over deletes it."""
_NUMBER = (int, float, type(None))
_TYPES: dict[str, Any] = {"kind": str, "gradient_norm": (str, *_NUMBER), "samples": list}
"""Types of a log's values, by their names; all others are numbers."""
NUM_BUCKETS = 8
"""Number of equal parts of the steps 1..T that have their own held-out loss in metrics.jsonl."""


@dataclass(frozen=True, slots=True)
class Run:
    """A run folder."""

    path: Path
    config: RunConfig
    data: str
    """Folder that `sr3 prepare` wrote, or a mixture of several; see run_data and pipelines.settings.mixtures."""
    data_fingerprints: dict[str, str]
    """Fingerprint of each prepared stage that it was trained on."""
    provenance: dict[str, Any]
    bucket: BucketRun | None = None
    """Where the run is if path is a working copy; None for a run on a disk."""

    @property
    def location(self) -> str:
        """What open_run takes on any machine to find the run."""
        return self.bucket.uri if self.bucket else read_only_location(self.path) or str(self.path)

    @property
    def stages(self) -> tuple[StageRun, ...]:
        """All stages, in the preset's order."""
        samples = self.config.samples
        return tuple(
            StageRun(self.path / config.name, config, self.data, self.bucket, samples.get(config.data_stage))
            for config in self.config.stages
        )

    def publish(self) -> None:
        """Upload a command's results to the bucket; does nothing for a run on a disk."""
        if self.bucket is not None:
            self.bucket.push_results()

    @property
    def trained_on_gpus(self) -> bool:
        """Whether a stage was trained on GPUs, so that sampling it on a CPU would take days."""
        return any(stage.placement.use_gpu for stage in self.config.stages)

    def stage(self, name: str) -> StageRun:
        """One stage.

        Raises:
            ConfigError: there is none of that name.
        """
        for stage in self.stages:
            if stage.name == name:
                return stage
        raise ConfigError(f"stage: {self.path} has no {name!r}, {did_you_mean(name, [s.name for s in self.stages])}")

    def cascade(self) -> tuple[StageRun, ...]:
        """The SR3 stages in the order of their sizes."""
        found = [stage for stage in self.stages if stage.config.model.kind == "sr3"]
        return tuple(sorted(found, key=lambda stage: num_pixels(stage.config.model.low_size)))

    def base(self) -> StageRun | None:
        """The base model, whose samples the cascade enlarges (section 4.3); None without one."""
        return next((stage for stage in self.stages if stage.config.model.kind == "base"), None)

    def regressions(self) -> tuple[StageRun, ...]:
        """The regression baselines."""
        return tuple(stage for stage in self.stages if stage.config.model.kind == "regression")


def open_run(path: str | Path, results: bool = True) -> Run:
    """Open a run folder, or a run in a bucket through a working copy.

    Args:
        path: the folder, or s3:// URI.
        results: False leaves what was derived from the checkpoints, such as 50,000 samples, in the bucket.

    Raises:
        DataError: it is not a run.
        ConfigError: its configuration has another format version or is invalid.
    """
    location, bucket, path = path, *_find(path)
    if bucket is not None:
        bucket.pull(without=() if results else RESULTS)
    content = _read_config(location, path / "config.json")
    with decoding(path / "config.json", "configuration of a run", "restore it, or train into another folder"):
        return Run(
            path,
            from_dict(RunConfig, content["config"]),
            _text(content["data"]),
            {stage: _text(fingerprint) for stage, fingerprint in content["data_fingerprints"].items()},
            dict(content["provenance"]),
            bucket,
        )


def _read_config(location: str | Path, file: Path) -> dict[str, Any]:
    remedy = f"create one with `sr3 train PRESET --out {quote(str(location))}`"
    try:
        content = strict_json.loads(file.read_bytes())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DataError(f"{location} is not a run: it has no config.json; {remedy}") from error
    except OSError as error:
        raise StorageError(f"{file}: {describe_error(error)}") from error
    except ValueError as error:
        raise DataError(f"{file} is damaged: {error}; restore it, or train into another folder") from error
    if not isinstance(content, dict) or content.get("format") != "sr3-run":
        raise DataError(f"{location} is not a run: its config.json is another program's; {remedy}")
    if (version := content.get("format_version")) != RUN_FORMAT_VERSION:
        raise ConfigError(
            f"{file} has run format version {version!r}, this program reads {RUN_FORMAT_VERSION}; use the sr3 that"
            " wrote it, or train into another folder"
        )
    return content


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not text")
    return value


def _find(location: str | Path) -> tuple[BucketRun | None, Path]:
    """A run's place in a bucket, if it is in one, and its folder on this machine."""
    if is_read_only(str(location)):
        return None, read_only_folder(str(location))
    if is_remote(str(location)):
        bucket = BucketRun(str(location))
        return bucket, bucket.folder
    return None, local_path(location)


def create_run(path: str | Path, config: RunConfig, data: str, data_fingerprints: dict[str, str], fresh: bool) -> Run:
    """Create a run folder, or open an existing one to resume it.

    Args:
        path: the folder, or s3:// URI.
        config: what to train.
        data: the prepared folder, or a mixture.
        data_fingerprints: fingerprint of each prepared stage that the run reads.
        fresh: delete what an earlier run left.

    Raises:
        ConfigError: the folder holds a run with a different scientific configuration, or on other data; lists the
            differences. The number of steps may differ: no step depends on how many follow, so a run can be
            trained longer. A run that never made a step, for example for lack of resources, may be replaced.
    """
    location, bucket, path = path, *_find(path)
    if bucket is not None:
        bucket.pull()
    config_file = path / "config.json"
    if fresh and config_file.is_file():
        for name in (*(stage.name for stage in open_run(location).stages), *RESULTS):
            _delete(path / name)
        config_file.unlink()
        if bucket is not None:
            bucket.delete_below(bucket.uri)
    old = open_run(location) if config_file.is_file() else None
    same = old if old is not None and old.data_fingerprints == data_fingerprints else None
    config = with_residual_scales(with_samples(config, data), data, same.config if same is not None else None)
    content = {
        "format": "sr3-run",
        "format_version": RUN_FORMAT_VERSION,
        "config": to_dict(config),
        "data": absolute_data(data),
        "data_fingerprints": data_fingerprints,
        "provenance": {
            k: v for k, v in provenance(config, _parents(config, data_fingerprints)).items() if k != "config"
        },
    }
    if old is not None:
        changed = differences(_what_a_step_computes(old.config), _what_a_step_computes(config))
        changed += differences(old.data_fingerprints, data_fingerprints, "data")
        if changed and any(stage.metrics.is_file() or any(stage.checkpoints.glob("*")) for stage in old.stages):
            raise ConfigError(
                f"{path} holds a run with a different configuration: {'; '.join(changed)}. Choose another --out, or"
                " pass --fresh to delete that run"
            )
        if not changed:
            content["provenance"] = old.provenance
    write_atomic(config_file, strict_json.dumps(content, indent=1))
    if bucket is not None:
        bucket.push(config_file)
    return replace(open_run(location), config=config)


def _parents(config: RunConfig, data_fingerprints: dict[str, str]) -> dict[str, str]:
    """What a run is made from: its data, and the weights that stages start from."""
    weights = {f"{stage.name} weights": stage.initial_weights for stage in config.stages if stage.initial_weights}
    return data_fingerprints | weights


def _delete(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _what_a_step_computes(config: RunConfig) -> dict[str, Any]:
    """The scientific configuration without the number of steps, stages by name."""
    stages = {stage.name: strict_json.plain(scientific(stage)) for stage in config.stages}
    for stage in stages.values():
        del stage["num_steps"]
    samples = {"samples": to_dict(config)["samples"]} if config.samples else {}
    return {"name": config.name, "stages": stages, **samples}


def data_fingerprints(data: str, config: RunConfig) -> dict[str, str]:
    """Fingerprint of each prepared stage that a run reads.

    Raises:
        ConfigError: a stage starts from a regression that the run does not train, its noise schedule ends early, or its
            network is imported.
        DataError: a stage has not been prepared, or holds no images to train on or to measure the held-out loss on; of
            a mixture, in one of its preparations.
    """
    config.check_trainable()
    config.check_origins()
    config.check_ends()
    found = {}
    for name in {stage.data_stage for stage in config.stages}:
        require_everywhere(data, name, "train")
        require_everywhere(data, name, "validation")
        found[name] = stage_fingerprint(data, name)
    return found


def local_path(path: str | Path) -> Path:
    """An absolute local path: Ray's workers run in other folders.

    Raises:
        StorageError: path is a URI; run folders are local, or on a file system that all nodes share.
    """
    path = uris.path_of(str(path))
    if "://" in path or ":/" in path:
        raise StorageError(f"{path}: this must be a folder on this machine, or on a file system that all nodes share")
    return Path(os.path.realpath(os.path.expanduser(path)))  # which, unlike Path.resolve, take a loop of links


def write_atomic(path: Path, text: str) -> None:
    """Write a small text file atomically: readers see the old or the new one, never a part.

    Raises:
        StorageError: it cannot be written.
    """
    uris.write_atomic(str(path), text.encode())


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a metrics.jsonl; a half-written last one is left out, a missing file has none.

    Raises:
        DataError: a line is none of ours.
    """
    if not path.is_file():
        return []
    lines = [line for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
    return [_read_line(path, number, line) for number, line in enumerate(lines, 1)]


def _read_line(path: Path, number: int, line: bytes) -> dict[str, Any]:
    with decoding(path, "log", f"delete line {number} of it, or restore it"):
        found = strict_json.loads(line)
        wrong = [key for key, value in found.items() if not isinstance(value, _TYPES.get(key, _NUMBER))]
        if wrong or not isinstance(found["step"], int) or not found.keys() & {"kind", "worker"}:
            raise TypeError(f"line {number}: {', '.join(wrong) or 'neither a step nor an incident'}")
        return found
