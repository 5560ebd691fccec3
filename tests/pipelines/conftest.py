"""A fresh place on a disk or a real S3 server, and a tiny run of two stages whose networks are random, not trained."""

from pathlib import Path

import pytest
import torch

from pipelines.runs.run_folder import create_run
from pipelines.settings.train import RunConfig, TrainConfig
from pipelines.storage import uris
from sr3core.checkpoint import save_checkpoint, take_snapshot
from sr3core.hyperparameters import ModelConfig, OptimizerConfig
from sr3core.networks.architectures import unet_tiny
from sr3core.randomness import keyed_generator
from sr3core.training import create_state

MAGNIFICATION = 4


@pytest.fixture(scope="session")
def empty_bucket(s3_server):
    s3_server.create_bucket("empty")
    return f"s3://empty/x?endpoint_override={s3_server.endpoint}"


@pytest.fixture(params=["disk", "bucket"])
def place(request, tmp_path):
    """A fresh folder or prefix."""
    if request.param == "disk":
        return str(tmp_path)
    return uris.join(request.getfixturevalue("empty_bucket"), tmp_path.name)


@pytest.fixture(scope="session")
def cascade_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with the stages 8-16 and 16-32."""
    stages = []
    for low in (8, 16):
        model = ModelConfig(low_size=low, high_size=2 * low, unet=unet_tiny(2 * low, 8))
        stages.append(TrainConfig(name=f"{low}-{2 * low}", model=model, batch_size=64, num_steps=1))
    fingerprints = {stage.name: "0" for stage in stages}
    path = tmp_path_factory.mktemp("cascade") / "run"
    run = create_run(path, RunConfig(name="tiny", stages=tuple(stages)), "data", fingerprints, fresh=False)
    for stage in run.stages:
        state = create_state(stage.config.model, OptimizerConfig(), seed=0)
        generator = keyed_generator(0, "weights", stage.name)
        with torch.no_grad():  # the last layers start at zero, and would make all outputs alike
            for network in (state.model, state.ema or state.model):
                for parameter in network.parameters():
                    parameter.add_(0.03 * torch.randn(parameter.shape, generator=generator))
        save_checkpoint(stage.checkpoints, take_snapshot(state), {})
    return path
