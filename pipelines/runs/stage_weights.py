"""The weights of one stage of a run: finding its best checkpoint, checking it, loading the network."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.runs.bucket_runs import BucketRun
from pipelines.settings.inference import InferenceConfig
from sr3core.config import fingerprint_of
from sr3core.errors import CheckpointError
from sr3core.hyperparameters import ModelConfig

if TYPE_CHECKING:  # torch takes seconds to import, and the command line only wants the layout
    from sr3core.checkpoint import CheckpointInfo
    from sr3core.networks.inference import InferenceNetwork
    from sr3core.networks.network import Network


@dataclass(frozen=True, slots=True)
class StageWeights:
    """A stage's checkpoints, for sampling."""

    checkpoints: Path
    """Folder of checkpoints. In an exported model the stage's folder itself is its one checkpoint."""
    model: ModelConfig
    bucket: BucketRun | None
    """Where the run is if checkpoints is in a working copy; None for a run on a disk."""

    def newest(self) -> "CheckpointInfo":
        """The newest complete checkpoint, or for regression the one of peak held-out PSNR (section 4).

        Raises:
            CheckpointError: there is none.
        """
        from sr3core.checkpoint import is_checkpoint, list_checkpoints, read_info

        found = list_checkpoints(self.checkpoints)
        if not found and is_checkpoint(self.checkpoints.parent):
            return read_info(self.checkpoints.parent)
        if not found:
            raise CheckpointError(f"{self.checkpoints} holds no checkpoint: train the stage first (`sr3 train`)")
        if self.model.kind == "regression":
            return max(found, key=lambda info: (info.state.get("validation_psnr") or float("-inf"), info.step))
        return found[-1]

    def fingerprint(self) -> str:
        """Identity of the newest checkpoint's content.

        Raises:
            CheckpointError: there is none.
        """
        return fingerprint_of(self.newest().state["sha256"])

    def fetch(self, info: "CheckpointInfo") -> "CheckpointInfo":
        """Download a checkpoint's files that are not on this machine yet."""
        if self.bucket is not None:
            self.bucket.fetch(info)
        return info

    def check(self) -> None:
        """Refuse missing weights, or those of another network, before any work starts.

        Raises:
            CheckpointError: names the checkpoint.
        """
        import torch

        from sr3core.checkpoint import sampling_weights
        from sr3core.networks.building import build_network
        from sr3core.networks.unet_weights import check_weights

        with torch.device("meta"):
            network = build_network(self.model)
        check_weights(network, sampling_weights(self.fetch(self.newest())))

    def load(self) -> "Network":
        """The network with the weights to sample with, in evaluation mode, on the CPU.

        Raises:
            CheckpointError: there is no checkpoint, or it is damaged or of another architecture.
        """
        import torch

        from sr3core.checkpoint import sampling_weights, verify
        from sr3core.networks.building import build_network
        from sr3core.networks.unet_weights import load_weights

        info = self.fetch(self.newest())
        verify(info)
        network = build_network(self.model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        load_weights(network, sampling_weights(info))
        return network.eval()

    def load_fast(self, inference: InferenceConfig, device: str) -> "InferenceNetwork":
        """The network of `load` on a device, at the precision and compilation that inference asks for."""
        from sr3core.networks.inference import InferenceNetwork

        return InferenceNetwork(self.load(), device, inference.precision, inference.compile)
