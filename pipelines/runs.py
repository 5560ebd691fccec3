"""The layout of a run folder, and opening what it holds.

RUN/config.json                 preset, every stage's configuration, data, provenance
RUN/<stage>/metrics.jsonl       losses and speeds
RUN/<stage>/checkpoints/        sr3core.checkpoint's folders
RUN/<stage>/schedules/          inference schedules, best-<steps>.json from a search
"""

import json
import logging
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.config import RunConfig, TrainConfig
from pipelines.provenance import provenance
from sr3core.config import did_you_mean, differences, from_dict, scientific, to_dict
from sr3core.errors import CheckpointError, ConfigError, DataError, StorageError
from sr3core.schedules import InferenceSchedule, default_schedule, schedule_from_json

if TYPE_CHECKING:  # torch takes seconds to import, and the command line only wants the layout
    from sr3core.cascade import Stage
    from sr3core.checkpoint import CheckpointInfo
    from sr3core.unet import UNet

RUN_FORMAT_VERSION = 1
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StageRun:
    """One stage of a run."""

    path: Path
    config: TrainConfig
    data: str
    """Folder that `sr3 prepare` wrote."""

    @property
    def name(self) -> str:
        """The stage's name."""
        return self.config.name

    @property
    def metrics(self) -> Path:
        """metrics.jsonl."""
        return self.path / "metrics.jsonl"

    @property
    def checkpoints(self) -> Path:
        """Folder of checkpoints."""
        return self.path / "checkpoints"

    @property
    def schedules(self) -> Path:
        """Folder of inference schedules."""
        return self.path / "schedules"

    def newest_checkpoint(self) -> "CheckpointInfo":
        """The newest whole checkpoint, or for regression the one of peak held-out PSNR (section 4).

        Raises:
            CheckpointError: there is none.
        """
        from sr3core.checkpoint import list_checkpoints

        found = list_checkpoints(self.checkpoints)
        if not found:
            raise CheckpointError(f"{self.checkpoints} holds no checkpoint: train the stage first (`sr3 train`)")
        if self.config.model.kind == "regression":
            return max(found, key=lambda info: (info.state.get("validation_psnr") or float("-inf"), info.step))
        return found[-1]

    def check(self) -> None:
        """Refuse a stage without a checkpoint, or with one of another network, before any work starts.

        Raises:
            CheckpointError: tells which.
        """
        import torch

        from sr3core.checkpoint import check_weights, sampling_weights
        from sr3core.unet import UNet

        with torch.device("meta"):
            network = UNet(self.config.model.unet)
        check_weights(network, sampling_weights(self.newest_checkpoint()))

    def load_network(self) -> "UNet":
        """The network with the weights to sample with, in evaluation mode, on the CPU.

        Raises:
            CheckpointError: none, damaged, or of another architecture.
        """
        import torch

        from sr3core.checkpoint import load_weights, sampling_weights, verify
        from sr3core.unet import UNet

        info = self.newest_checkpoint()
        verify(info)
        network = UNet(self.config.model.unet).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        load_weights(network, sampling_weights(info))
        return network.eval()

    def schedule(self, wanted: str | None = None) -> InferenceSchedule | None:
        """The inference schedule to use: None for regression.

        Args:
            wanted: a file, the name of one in schedules/, or a number of steps: the trained schedule respaced. By
                default best-*.json of the most steps, else the trained schedule respaced to 100.

        Raises:
            ConfigError: more steps than the network was trained with; CheckpointError: no such schedule file.
        """
        if self.config.model.kind == "regression":
            return None
        noise = self.config.model.noise_schedule
        best = sorted(self.schedules.glob("best-*.json"), key=lambda path: int(path.stem.removeprefix("best-")))
        if wanted is None and not best:
            return default_schedule(noise, min(100, noise.num_steps))
        if wanted is not None and wanted.isdecimal():
            return default_schedule(noise, int(wanted))
        path = best[-1] if wanted is None else _schedule_path(self.schedules, wanted)
        return schedule_from_json(path.read_text(), str(path))

    def load(self, schedule: str | None = None) -> "Stage":
        """The stage, ready to upscale."""
        from sr3core.cascade import Stage

        return Stage(self.name, self.config.model, self.load_network(), self.schedule(schedule))


def _schedule_path(folder: Path, wanted: str) -> Path:
    for path in (Path(wanted), folder / wanted, folder / f"{wanted}.json"):
        if path.is_file():
            return path
    known = [path.stem for path in folder.glob("*.json")]
    hint = did_you_mean(wanted, known) if known else "run `sr3 search` to make some"
    raise ConfigError(f"schedule: {wanted!r} is neither a file, a number of steps nor one of {folder}; {hint}")


@dataclass(frozen=True, slots=True)
class Run:
    """A run folder."""

    path: Path
    config: RunConfig
    data: str
    provenance: dict[str, Any]

    @property
    def stages(self) -> tuple[StageRun, ...]:
        """All stages, in the preset's order."""
        return tuple(StageRun(self.path / config.name, config, self.data) for config in self.config.stages)

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
        return tuple(sorted(found, key=lambda stage: stage.config.model.low_size or 0))

    def base(self) -> StageRun | None:
        """The base model, whose samples the cascade enlarges (section 4.3); None without one."""
        return next((stage for stage in self.stages if stage.config.model.kind == "base"), None)

    def regressions(self) -> tuple[StageRun, ...]:
        """The regression baselines."""
        return tuple(stage for stage in self.stages if stage.config.model.kind == "regression")


def open_run(path: str | Path) -> Run:
    """Open a run folder.

    Raises:
        DataError: it is none.
        ConfigError: its configuration is of another format version or invalid.
    """
    path = local_path(path)
    try:
        content = json.loads((path / "config.json").read_text())
    except FileNotFoundError as error:
        raise DataError(
            f"{path} is no run: it has no config.json; `sr3 train PRESET --out {path}` makes one"
        ) from error
    except ValueError as error:
        raise DataError(f"{path}/config.json is damaged: {error}") from error
    version = content.get("format_version")
    if content.get("format") != "sr3-run" or version != RUN_FORMAT_VERSION:
        raise ConfigError(
            f"{path}/config.json has run format version {version!r}, this program reads {RUN_FORMAT_VERSION}"
        )
    return Run(path, from_dict(RunConfig, content["config"]), content["data"], content["provenance"])


def create_run(path: str | Path, config: RunConfig, data: str, data_fingerprints: dict[str, str], fresh: bool) -> Run:
    """Start a run folder, or open it again to go on.

    Args:
        path: the folder.
        config: what to train.
        data: the prepared folder.
        data_fingerprints: of each prepared stage that the run reads.
        fresh: delete what an earlier run left.

    Raises:
        ConfigError: the folder holds a run of another scientific configuration, or on other data; lists differences.
    """
    path = local_path(path)
    config_file = path / "config.json"
    if fresh and config_file.is_file():
        for stage in open_run(path).stages:
            shutil.rmtree(stage.path, ignore_errors=True)
        config_file.unlink()
    content = {
        "format": "sr3-run",
        "format_version": RUN_FORMAT_VERSION,
        "config": to_dict(config),
        "data": data,
        "data_fingerprints": data_fingerprints,
        "provenance": {k: v for k, v in provenance(config, data_fingerprints).items() if k != "config"},
    }
    if config_file.is_file():
        old = open_run(path)
        changed = differences(to_json(scientific(old.config)), to_json(scientific(config)))
        recorded = json.loads(config_file.read_text())["data_fingerprints"]
        changed += differences(recorded, data_fingerprints, "data")
        if changed:
            raise ConfigError(
                f"{path} holds a run of another configuration: {'; '.join(changed)}. Take another --out, or --fresh to"
                " delete that run"
            )
        content["provenance"] = old.provenance
    write_atomic(config_file, json.dumps(content, indent=1))
    return replace(open_run(path), config=config)


def data_fingerprints(data: str, config: RunConfig) -> dict[str, str]:
    """Fingerprint of each prepared stage that a run reads.

    Raises:
        DataError: a stage has not been prepared.
    """
    from pipelines.manifest import load_manifest
    from pipelines.storage import join

    return {name: load_manifest(join(data, name)).fingerprint for name in {s.data_stage for s in config.stages}}


def to_json(data: Any) -> Any:
    """Tuples as lists, so that what was read from a file compares equal."""
    return json.loads(json.dumps(data))


def local_path(path: str | Path) -> Path:
    """An absolute local path: Ray's workers run in other folders.

    Raises:
        StorageError: path is a URI; run folders are local, or on a file system that all nodes share.
    """
    if "://" in str(path) or ":/" in str(path):
        raise StorageError(f"{path}: run folders must be local or on a file system shared by all nodes, not a URI")
    return Path(path).expanduser().resolve()


def write_atomic(path: Path, text: str) -> None:
    """Write a small text file so that readers see the old or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text)
    temporary.replace(path)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a metrics.jsonl; a half-written last one is left out, a missing file has none."""
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
