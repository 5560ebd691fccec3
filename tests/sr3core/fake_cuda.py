"""CUDA tensors without a GPU: torch's fake tensors have a device, a type and a layout, but no values.

An operation that mixes devices fails on them, and so does reading a value on the host. torch's CPU build lacks one
thing that this needs, the guard that switches between devices; here is one that does nothing.
"""

import ctypes
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily

GUARD = """
#include <c10/core/impl/DeviceGuardImplInterface.h>
namespace c10::impl { C10_REGISTER_GUARD_IMPL(CUDA, NoOpDeviceGuardImpl<DeviceType::CUDA>); }
"""


def load_guard(folder: Path) -> None:
    """Compile and register the guard in this process."""
    if torch.version.cuda is not None:
        return  # this build has its own
    if shutil.which("g++") is None:
        pytest.skip("there is no compiler here")
    source, library, root = folder / "guard.cpp", folder / "guard.so", Path(torch.__file__).parent
    source.write_text(GUARD)
    flags = ["-std=c++20", "-shared", "-fPIC", f"-I{root / 'include'}", f"-L{root / 'lib'}", "-lc10"]
    subprocess.run(["g++", str(source), *flags, "-o", str(library)], check=True)
    ctypes.CDLL(str(library))


class FakeGpu:
    """Makes fake CUDA tensors and networks."""

    def __init__(self) -> None:
        self.mode = FakeTensorMode()

    def tensor(self, tensor: Tensor) -> Tensor:
        """A fake tensor on the GPU with the shape, type and layout of a real one."""
        with unset_fake_temporarily():
            shape = tensor.detach().to("meta")
        return FakeTensor(self.mode, shape, torch.device("cuda:0"))

    def network(self, network: nn.Module) -> nn.Module:
        """The network with its weights replaced by fake ones on the GPU."""
        for module in network.modules():
            for name, weight in module._parameters.items():
                if weight is not None:
                    module._parameters[name] = nn.Parameter(self.tensor(weight), weight.requires_grad)
            for name, buffer in module._buffers.items():
                if buffer is not None:
                    module._buffers[name] = self.tensor(buffer)
        return network


@contextmanager
def fake_gpu() -> Iterator[FakeGpu]:
    """A GPU whose tensors can be made and computed with inside this context; pinned memory is ordinary memory there."""
    gpu, patch = FakeGpu(), pytest.MonkeyPatch()
    patch.setattr(Tensor, "pin_memory", lambda tensor: tensor)
    try:
        with gpu.mode:
            yield gpu
    finally:
        patch.undo()
