"""Networks made fast give what the plain ones give; what cannot be compiled runs as it is."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from sr3core.features.extractors import SeededFeatures
from sr3core.hyperparameters import UNetConfig
from sr3core.networks.inference import InferenceNetwork
from sr3core.networks.precision import exact_float32, set_gpu_arithmetic
from sr3core.networks.unet import UNet
from sr3core.randomness import keyed_generator

CONFIG = UNetConfig(
    image_size=16, base_channels=16, channel_multipliers=(1, 2), num_res_blocks=1, attention_sizes=(8,), dropout=0.1
)


SMALLEST = UNetConfig(image_size=8, base_channels=4, channel_multipliers=(1,), num_res_blocks=1, attention_sizes=())
"""Compiling takes a second a layer."""


def network(config=CONFIG):
    """Weights that are random and nowhere zero."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        unet = UNet(config)
    with torch.no_grad():
        for index, parameter in enumerate(unet.parameters()):
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=keyed_generator(0, "weights", index)))
    return unet.eval()


def inputs(size=16):
    x_up, y_t = torch.randn(2, 2, 3, size, size, generator=keyed_generator(0, "inputs", size))
    return x_up, y_t, torch.tensor([0.9, 1e-4], dtype=torch.float64)


@torch.inference_mode()
def outputs(fast, size=16, config=CONFIG):
    return fast(*inputs(size)), network(config)(*inputs(size))


def test_without_options_the_output_is_the_networks():
    fast = InferenceNetwork(network().train())
    torch.testing.assert_close(*outputs(fast))
    assert fast.size_multiple == 2


def test_bfloat16_halves_the_weights_and_stays_close():
    fast = InferenceNetwork(network(), precision="bfloat16")
    output, wanted = outputs(fast)
    assert output.dtype == torch.float32
    error = (output - wanted).square().mean().sqrt() / wanted.std()
    assert 1e-5 < error < 0.02  # it is another arithmetic, and a good one: 8 bits are 0.004 a rounding
    size = sum(parameter.nbytes for parameter in network().parameters())
    assert sum(parameter.nbytes for parameter in fast.parameters()) < 0.6 * size


def test_bfloat16_leaves_noise_levels_apart_and_the_output_unrounded():
    """Two neighbouring levels of T = 2000, whose embeddings 8 bits could not tell apart."""
    seen = {}
    unet = network()
    unet.embed_noise_level.register_forward_hook(lambda *call: seen.update(embedding=call[2]))
    fast = InferenceNetwork(unet, precision="bfloat16")
    x_up, y_t, _ = inputs()
    gamma = torch.tensor([0.5, 0.5005], dtype=torch.float64)
    with torch.inference_mode():
        output = fast(x_up, y_t, gamma)
        torch.testing.assert_close(seen["embedding"], network().embed_noise_level(gamma))
    assert not torch.equal(output, output.bfloat16().float())


@pytest.fixture
def switches():
    backends = torch.backends.cudnn, torch.backends.cuda.matmul
    before = [backend.allow_tf32 for backend in backends], torch.backends.cudnn.benchmark
    yield backends
    for backend, value in zip(backends, before[0], strict=True):
        backend.allow_tf32 = value  # pyright: ignore[reportAttributeAccessIssue] - a property that torch adds at run time
    torch.backends.cudnn.benchmark = before[1]
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize(
    ("precision", "tf32"), [("float32", False), ("tf32", True), ("bfloat16", False)], ids=lambda value: str(value)
)
def test_the_switches_of_the_gpu_are_set_in_one_place(switches, precision, tf32):
    """With bfloat16, what autocast leaves in float32 (the output layer, the embedding) is not TensorFloat-32."""
    set_gpu_arithmetic(precision, tunes=True)
    assert [backend.allow_tf32 for backend in switches] == [tf32, tf32]
    assert torch.backends.cudnn.benchmark
    set_gpu_arithmetic(precision)
    assert not torch.backends.cudnn.benchmark


def test_a_deterministic_training_lets_nothing_be_tuned(switches):
    set_gpu_arithmetic("bfloat16", tunes=True, deterministic=True)
    assert not torch.backends.cudnn.benchmark
    assert torch.are_deterministic_algorithms_enabled()
    set_gpu_arithmetic("bfloat16", tunes=True)
    assert not torch.are_deterministic_algorithms_enabled()


def test_exact_float32_holds_inside_and_leaves_the_switches_as_they_were(switches):
    set_gpu_arithmetic("tf32")
    with exact_float32():
        assert [backend.allow_tf32 for backend in switches] == [False, False]
    assert [backend.allow_tf32 for backend in switches] == [True, True]


def test_features_are_computed_without_tensorfloat_32(switches):
    """A sampler of the same process may have set it for its network."""
    seen = []

    class Features(SeededFeatures):
        def embed(self, images):
            seen.append([backend.allow_tf32 for backend in switches])
            return super().embed(images)

    set_gpu_arithmetic("tf32")
    Features()(np.zeros((1, 16, 16, 3), np.uint8))
    assert seen == [[False, False]]


def test_nobody_else_sets_them():
    """They are the process's: two who set them would undo each other's choice."""
    root = Path(__file__).resolve().parents[3]
    files = [path for package in ("sr3core", "pipelines", "tune", "cluster") for path in (root / package).rglob("*.py")]
    assert files
    found = [path.name for path in files if re.search(r"allow_tf32|cudnn\.benchmark =", path.read_text())]
    assert found == ["precision.py"]


@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no compiler here")
def test_a_compiled_network_is_the_same_for_every_shape(tmp_path):
    """In a process of its own: where distutils was imported before setuptools, the compiler refuses to start."""
    environment = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}  # nobody else compiles into it meanwhile
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, env=environment, check=False)
    assert done.stdout == "same\n", done.stderr
    assert "continuing without it" not in done.stderr


PROGRAM = """
import logging, torch
from tests.sr3core.networks.test_inference import SMALLEST, InferenceNetwork, network, outputs
logging.basicConfig(level=logging.WARNING, format="%(message)s")
fast = InferenceNetwork(network(SMALLEST), compiled=True)
for size in (8, 16):
    torch.testing.assert_close(*outputs(fast, size, SMALLEST), rtol=1e-4, atol=1e-5)
print("same")
"""


def test_without_a_compiler_the_network_runs_as_it_is_and_says_so_once(tmp_path):
    environment = {**os.environ, "CXX": "/no/such/compiler", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, env=environment, check=False)
    assert done.stdout == "same\n", done.stderr
    assert done.stderr.count("torch.compile failed, continuing without it") == 1


def test_what_is_not_compiled_does_not_import_the_compiler():
    """That takes as long as importing torch, in every process: a sampler's, a measurer's, a trial's."""
    code = (
        "import sys, torch; from tests.sr3core.networks.test_inference import SMALLEST, InferenceNetwork, network,"
        " outputs; outputs(InferenceNetwork(network(SMALLEST)), 8, SMALLEST); print('torch._dynamo' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "False\n", done.stderr
