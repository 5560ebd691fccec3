"""Model FLOP utilisation, memory and speed of a network of Table A.1 on a GPU. Needs sr3core and torch alone.

    python tests/benchmarks/bench_gpu.py --out gpu.json                         # the 64-256 network, bfloat16
    python tests/benchmarks/bench_gpu.py --tiny --device cpu --out tiny.json    # whether this script runs, and no more

For sampling (eager, and compiled in CUDA graphs) and for Trainer.step (eager and compiled), for each
batch that fits: seconds a call, utilisation, images a second and the most memory that was allocated.
Utilisation is sr3core.networks.flops' count of a forward pass, three times that for a training step, over the
device's dense peak by its maker. The sampler's own arithmetic and the drawing of noise on the host are in
the measured time, in the count they are not.

No number of this script on a GPU has been measured yet: it has only been run with --tiny on a CPU, where there is no
peak to compare with.
"""

import argparse
import gc
import json
import platform
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import torch

from sr3core.cascade import Stage, upscale
from sr3core.diffusion.schedules import default_schedule
from sr3core.hyperparameters import ModelConfig, OptimizerConfig, UNetConfig
from sr3core.networks.architectures import unet_16_128, unet_64_256, unet_64_512, unet_256_1024, unet_tiny
from sr3core.networks.execution import accelerate
from sr3core.networks.flops import TRAINING_FACTOR, forward_flops, peak_flops
from sr3core.networks.inference import InferenceNetwork
from sr3core.networks.unet import UNet, num_parameters
from sr3core.training import Batch, Trainer, create_state

ROWS: dict[str, tuple[int, Callable[[], UNetConfig]]] = {
    "16-128": (16, unet_16_128),
    "64-256": (64, unet_64_256),
    "64-512": (64, unet_64_512),
    "256-1024": (256, unet_256_1024),
    "tiny": (8, lambda: unet_tiny(16, 8)),
}


def synchronized(device: torch.device) -> float:
    """Seconds, once the device has done everything so far."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def seconds_of(call: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Median seconds of a call, after one that is not counted: it compiles and chooses algorithms."""
    call()
    times = []
    for _ in range(repeats):
        started = synchronized(device)
        call()
        times.append(synchronized(device) - started)
    return median(times)


def sampling(model: ModelConfig, options: Any, compiled: bool) -> Callable[[int], Callable[[], object]]:
    """Batch -> a call that draws so many images in options.steps steps."""
    network = InferenceNetwork(UNet(model.unet), options.device, options.precision, compiled)
    stage = Stage("benchmark", model, network, default_schedule(model.noise_schedule, options.steps))

    def of_batch(batch: int) -> Callable[[], object]:
        low = torch.zeros(batch, 3, model.low_size or 0, model.low_size or 0, device=options.device)
        return lambda: upscale(stage, low, range(batch))

    return of_batch


def training(model: ModelConfig, options: Any, compiled: bool) -> Callable[[int], Callable[[], object]]:
    """Batch -> a call that takes one step of Algorithm 1."""
    state = create_state(model, OptimizerConfig(), 0, options.device)
    trainer = Trainer(model, OptimizerConfig(), 0)
    forward = accelerate(state.model.train(), options.precision, "default" if compiled else None)

    def of_batch(batch: int) -> Callable[[], object]:
        low_size = model.low_size or 0
        low, high = (torch.zeros(batch, 3, side, side, device=options.device) for side in (low_size, model.high_size))
        part = Batch(low, high, tuple(range(batch)))
        return lambda: trainer.step(state, forward, [part])

    return of_batch


def measure(
    of_batch: Callable[[int], Callable[[], object]], flops_an_image: int, options: Any
) -> Iterator[dict[str, Any]]:
    """A row a batch, doubled until the memory is too small."""
    device, peak = torch.device(options.device), peak_flops(torch.device(options.device), options.precision)
    batch = 1
    while batch <= options.largest_batch:
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        try:
            seconds = seconds_of(of_batch(batch), device, options.repeats)
        except torch.OutOfMemoryError as error:
            yield {"batch": batch, "out_of_memory": str(error).splitlines()[0]}
            return
        speed = flops_an_image * batch / seconds
        yield {
            "batch": batch,
            "seconds": seconds,
            "images_per_second": batch / seconds,
            "flops_per_second": speed,
            "utilisation": speed / peak if peak else None,
            "memory_bytes": torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None,
        }
        batch *= 2


def main() -> None:
    """Measure, print a line a measurement, and write them all as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--row", choices=ROWS, default="64-256")
    parser.add_argument("--tiny", action="store_const", const="tiny", dest="row", help="a network for trying this out")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--precision", default="bfloat16", choices=["float32", "bfloat16"])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--largest-batch", type=int, default=256)
    parser.add_argument("--eager-only", action="store_true", help="leave torch.compile out")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    low_size, unet = ROWS[options.row][0], ROWS[options.row][1]()
    model = ModelConfig(low_size=low_size, high_size=unet.image_size, unet=unet)
    forward = forward_flops(unet)
    with torch.device("meta"):
        parameters = num_parameters(UNet(unet))
    found: dict[str, Any] = {
        "network": options.row,
        "parameters": parameters,
        "forward_flops": forward,
        "device": torch.cuda.get_device_name() if options.device == "cuda" else platform.processor() or "cpu",
        "peak_flops": peak_flops(torch.device(options.device), options.precision),
        "precision": options.precision,
        "steps": options.steps,
        "torch": torch.__version__,
    }
    print(json.dumps(found), flush=True)
    kinds = {"sampling": (sampling, forward * options.steps), "training": (training, forward * TRAINING_FACTOR)}
    for kind, (prepare, flops) in kinds.items():
        for compiled in (False,) if options.eager_only else (False, True):
            name = f"{kind}, {'compiled' if compiled else 'eager'}"
            found[name] = []
            for row in measure(prepare(model, options, compiled), flops, options):
                print(json.dumps({name: row}), flush=True)
                found[name].append(row)
                options.out.write_text(json.dumps(found, indent=1))  # a run that is cut short has shown something
            gc.collect()
            if options.device == "cuda":
                torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
