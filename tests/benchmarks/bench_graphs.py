"""Graphs into which torch.compile cuts a network under DDP, by the number of parts in which gradients travel.

    python tests/benchmarks/bench_graphs.py [--preset imagenet-64-256] [--base-channels 16]

Counted with a compiler that compiles nothing; the width does not change the number.
"""

import argparse
import tempfile
from typing import Any

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from pipelines.settings.presets import preset
from pipelines.training.worker_group import NUM_BUCKETS
from sr3core.config import override
from sr3core.hyperparameters import UNetConfig
from sr3core.networks.precision import InPrecision
from sr3core.networks.unet import UNet


def graphs(config: UNetConfig, buckets: int) -> int:
    """Number of graphs of one forward pass."""
    count = 0

    def compiler(graph: Any, inputs: Any) -> Any:
        nonlocal count
        count += 1
        return graph.forward

    torch.compiler.reset()
    network = UNet(config).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    compiled: Any = torch.compile(InPrecision(network, "float32"), backend=compiler)
    part = sum(weight.nbytes for weight in network.parameters()) / buckets / 2**20
    ddp = DistributedDataParallel(compiled, gradient_as_bucket_view=True, bucket_cap_mb=part)
    image = torch.randn(2, 3, 2 * network.size_multiple, 2 * network.size_multiple)
    ddp(image if config.conditional else None, image, torch.rand(2)).mean().backward()
    return count


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--preset", default="imagenet-64-256")
    parser.add_argument("--base-channels", type=int, default=16)
    options = parser.parse_args()
    config = override(preset(options.preset).stages[0].model.unet, base_channels=options.base_channels)
    with tempfile.TemporaryDirectory() as folder:
        dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=0, world_size=1)
        for buckets in (1, 4, NUM_BUCKETS):
            print(f"{options.preset}: gradients in {buckets} parts: {graphs(config, buckets)} graphs", flush=True)


if __name__ == "__main__":
    main()
