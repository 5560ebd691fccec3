"""One stage of a run: its files, its newest checkpoint, its inference schedule."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.runs.bucket_runs import BucketRun
from pipelines.settings.inference import InferenceConfig
from pipelines.settings.train import TrainConfig
from sr3core.config import did_you_mean
from sr3core.diffusion.schedules import InferenceSchedule, default_schedule, schedule_from_json
from sr3core.errors import CheckpointError, ConfigError
from sr3core.hyperparameters import ModelConfig

if TYPE_CHECKING:  # torch takes seconds to import, and the command line only wants the layout
    from sr3core.cascade import Stage
    from sr3core.checkpoint import CheckpointInfo
    from sr3core.networks.inference import InferenceNetwork
    from sr3core.networks.unet import UNet


@dataclass(frozen=True, slots=True)
class StageRun:
    """One stage of a run."""

    path: Path
    config: TrainConfig
    data: str
    """Folder that `sr3 prepare` wrote."""
    bucket: BucketRun | None = None
    """Where the run is if path is a working copy; None for a run on a disk."""

    @property
    def location(self) -> str:
        """What open_run takes on any machine to find the run."""
        return self.bucket.uri if self.bucket else str(self.path.parent)

    @property
    def name(self) -> str:
        """The stage's name."""
        return self.config.name

    @property
    def model(self) -> ModelConfig:
        """What it maps, and its network."""
        return self.config.model

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

        from sr3core.checkpoint import sampling_weights
        from sr3core.networks.unet import UNet
        from sr3core.networks.unet_weights import check_weights

        with torch.device("meta"):
            network = UNet(self.config.model.unet)
        check_weights(network, sampling_weights(self.fetched(self.newest_checkpoint())))

    def fetched(self, info: "CheckpointInfo") -> "CheckpointInfo":
        """A checkpoint whose files are all on this machine."""
        if self.bucket is not None:
            self.bucket.fetch(info)
        return info

    def load_network(self) -> "UNet":
        """The network with the weights to sample with, in evaluation mode, on the CPU.

        Raises:
            CheckpointError: none, damaged, or of another architecture.
        """
        import torch

        from sr3core.checkpoint import sampling_weights, verify
        from sr3core.networks.unet import UNet
        from sr3core.networks.unet_weights import load_weights

        info = self.fetched(self.newest_checkpoint())
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
            ConfigError: more steps than the network was trained with, or noise levels below those that it was trained
                at; CheckpointError: no such schedule file.
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
        from sr3core.cascade import check_levels

        found = schedule_from_json(path.read_text(), str(path))
        try:
            check_levels(self.model, found)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from error
        return found

    def load(
        self, schedule: str | None = None, inference: InferenceConfig | None = None, device: str = "cpu"
    ) -> "Stage":
        """The stage, ready to upscale."""
        from sr3core.cascade import Stage

        network = self.load_fast(inference or InferenceConfig(), device)
        return Stage(self.name, self.config.model, network, self.schedule(schedule))

    def load_fast(self, inference: InferenceConfig, device: str) -> "InferenceNetwork":
        """The network of load_network, ready to sample fast."""
        from sr3core.networks.inference import InferenceNetwork

        return InferenceNetwork(self.load_network(), device, inference.precision, inference.compile)


def _schedule_path(folder: Path, wanted: str) -> Path:
    for path in (Path(wanted), folder / wanted, folder / f"{wanted}.json"):
        if path.is_file():
            return path
    known = [path.stem for path in folder.glob("*.json")]
    hint = did_you_mean(wanted, known) if known else "run `sr3 search` to make some"
    raise ConfigError(f"schedule: {wanted!r} is neither a file, a number of steps nor one of {folder}; {hint}")
