"""Nothing in a training step or a chain makes the host wait for its device.

The meta device holds shapes and no values, so whoever wanted to read one on the host would fail; and a copy from the
host that is not asynchronous, which on a GPU waits until all before it is computed, is seen as torch dispatches it.
"""

import pytest
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils._python_dispatch import TorchDispatchMode

from sr3core.batch import Batch
from sr3core.diffusion.noise import NoiseField
from sr3core.diffusion.schedules import default_schedule
from sr3core.hyperparameters import ModelConfig, OptimizerConfig
from sr3core.networks.unet import UNet
from sr3core.sizes import sides_of
from sr3core.training import Trainer, TrainState
from sr3core.transfer import send
from sr3core.update_rules import update_average
from sr3core.upscaling.cascade import run_cascade
from sr3core.upscaling.stage import Stage, refine
from tests.sr3core.tiny_models import BASE, REGRESSION, SR3


class Waits(TorchDispatchMode):
    """Collects the copies between host and device for which the host waits."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, function, types, arguments=(), named=None):
        output = function(*arguments, **(named or {}))
        name, source = function.overloadpacket._qualified_op_name, arguments[0] if arguments else None
        if name in ("aten::_to_copy", "aten::copy_"):
            target, source = (output, source) if name == "aten::_to_copy" else (source, arguments[1])
            asynchronous = (named or {}).get("non_blocking") or (name == "aten::copy_" and arguments[2:] == (True,))
            if target.device != source.device and not asynchronous:
                self.found.append(f"{name} of {tuple(source.shape)} from {source.device} to {target.device}")
        return output


def batch_of(config: ModelConfig) -> Batch:
    low = None if config.low_size is None else torch.zeros(4, 3, *sides_of(config.low_size))
    classes = torch.tensor([0, 1, 2, 0]) if config.unet.num_classes else None
    return Batch(low, torch.zeros(4, 3, *sides_of(config.high_size)), (0, 1, 2, 3), classes=classes)


@pytest.mark.parametrize("config", [SR3, BASE, REGRESSION], ids=["sr3", "base", "regression"])
def test_a_training_step_never_waits_for_its_device(config):
    optimizer = OptimizerConfig(gradient_clip=1.0, spike_factor=5.0)
    network = UNet(config.unet).to("meta")
    # Fused Adam has no kernel for the meta device: of the whole step it alone is not looked at.
    state = TrainState(network, UNet(config.unet).to("meta"), torch.optim.RMSprop(network.parameters()))
    trainer = Trainer(config, optimizer, 0)
    for _ in range(2):  # the second step finds an average and a typical norm
        with Waits() as waits:
            trainer.step(state, state.model, batch_of(config).to("meta").split(2))
        assert waits.found == []


def test_a_cascade_never_waits_for_its_device():
    stage = Stage("8-16", SR3, UNet(SR3.unet).to("meta").eval(), default_schedule(SR3.noise_schedule, 3))
    low = torch.zeros(2, 3, 8, 8, device="meta")
    with Waits() as waits:
        run_cascade([stage], low, [0, 1])
        refine(stage, low, torch.zeros(2, 3, 16, 16, device="meta"), NoiseField(0, "meta").windows([(0, 0), (8, 8)]))
    assert waits.found == []


def test_what_is_sent_is_what_arrives():
    values = torch.randn(3, 4)
    assert torch.equal(send(values, "cpu"), values)
    assert send(values, "meta").is_meta


def test_the_average_is_what_pytorchs_own_update_makes():
    network = UNet(SR3.unet)
    ours, theirs = UNet(SR3.unet), AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    for step in range(3):
        with torch.no_grad():
            for weight in network.parameters():
                weight.add_(torch.randn_like(weight))
        update_average(ours, network, 0.9 if step else 0.0)
        theirs.update_parameters(network)
    assert all(map(torch.equal, ours.parameters(), theirs.module.parameters()))
