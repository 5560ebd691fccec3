"""What only a GPU can tell, in order of worth and within so many minutes. Needs torch, numpy and safetensors alone.

    python tests/benchmarks/gpu_check.py --minutes 12 --out results                      # on a GPU
    python tests/benchmarks/gpu_check.py --minutes 12 --out results --crops crops.npy    # and train in what is left
    python tests/benchmarks/gpu_check.py --tiny --device cpu --out results               # whether this script runs

Each part is a process with a time limit of its own and prints a line of JSON for each finding at once, also appended to
OUT/findings.jsonl: a part that crashes, hangs or is cut loses only what it had not found yet. The last part trains the
preset photos-4x on --crops, an array of uint8 crops, (N, 64, 64, 3), in a .npy file; the trained weights are
OUT/regression.safetensors and OUT/sr3.safetensors. No figure of this script on a GPU has been published yet.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from pipelines.settings.presets import (
    faces_16_128,
    faces_64_512,
    faces_512_crops,
    faces_1024_crops,
    faces_cascade,
    imagenet_64_256,
    imagenet_cascade,
    photos_4x,
)
from pipelines.settings.train import TrainConfig
from sr3core.batch import Batch
from sr3core.diffusion.noise import window_noise
from sr3core.diffusion.schedules import default_schedule
from sr3core.hyperparameters import ModelConfig, OptimizerConfig, Precision
from sr3core.images.pixels import to_float
from sr3core.images.resize import resize_bicubic, upsample_bicubic
from sr3core.networks.architectures import unet_tiny
from sr3core.networks.execution import accelerate
from sr3core.networks.flops import TRAINING_FACTOR, forward_flops, peak_flops
from sr3core.networks.inference import InferenceNetwork
from sr3core.networks.memory import training_memory
from sr3core.networks.precision import set_gpu_arithmetic
from sr3core.networks.unet import UNet
from sr3core.sizes import sides_of
from sr3core.training import Trainer, create_state
from sr3core.upscaling.cascade import upscale
from sr3core.upscaling.stage import Stage

Finding = dict[str, Any]

Checked = tuple[ModelConfig, int]
"""A model, and the images of its preset's micro-batch."""


def of_preset(stage: TrainConfig) -> Checked:
    """A stage as it is trained on one of its GPUs."""
    return stage.model, stage.batch_size // stage.placement.num_workers // stage.num_micro_batches


def stages_of(tiny: bool) -> dict[str, Checked]:
    """The networks of Table A.1 and section 4.3 by their presets, and those on crops; or two to try this script."""
    if tiny:
        whole = ModelConfig(low_size=8, high_size=16, unet=unet_tiny(16, 8))
        return {"8-16": (whole, 2), "8-16-crops": (replace(whole, unet=unet_tiny(8, 8)), 2)}
    runs = (faces_16_128(), imagenet_64_256(), faces_64_512(), faces_cascade())
    stages = {stage.name: of_preset(stage) for run in runs for stage in run.stages}
    crops = {
        f"{stage.name}-crops": of_preset(stage)
        for run in (faces_512_crops(), faces_1024_crops())
        for stage in run.stages
    }
    return {**stages, **crops, "base-64-classes": of_preset(imagenet_cascade().stages[0])}


class Setting:
    """What the parts have in common.

    Args:
        options: of the command line.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.device = torch.device(options.device)
        self.on_gpu = self.device.type == "cuda"
        self.precision: Precision = "bfloat16" if self.on_gpu else "float32"
        self.stages = stages_of(options.tiny)
        self.main, self.second = ("8-16", "8-16-crops") if options.tiny else ("64-256", "16-128")
        self.repeats = 1 if options.tiny else 5
        self.most_images = 2 if options.tiny else 64
        self.crops, self.out, self.seconds = options.crops, Path(options.out), options.seconds
        self.started = time.monotonic()

    @property
    def seconds_left(self) -> float:
        """Until this part is cut."""
        return self.seconds - (time.monotonic() - self.started)

    def now(self) -> float:
        """Seconds, once the device has done everything so far."""
        if self.on_gpu:
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def seconds_of(self, call: Callable[[], object], repeats: int | None = None) -> float:
        """Median seconds of a call, after one that is not counted: it compiles and chooses algorithms."""
        call()
        times = []
        for _ in range(repeats or self.repeats):
            started = self.now()
            call()
            times.append(self.now() - started)
        return median(times)

    def peak_memory(self) -> int | None:
        """The most bytes that were allocated since the last call; None on a CPU."""
        if not self.on_gpu:
            return None
        peak = torch.cuda.max_memory_allocated(self.device)
        torch.cuda.reset_peak_memory_stats(self.device)
        return peak


def batch_of(model: ModelConfig, count: int, device: torch.device) -> Batch:
    """Random images, or crops of them in their last corner."""
    low = None if model.low_size is None else torch.rand(count, 3, *sides_of(model.low_size), device=device)
    high = torch.rand(count, 3, *sides_of(model.unet.image_size), device=device)
    classes = torch.zeros(count, dtype=torch.int64, device=device) if model.unet.num_classes else None
    (height, width), (of_crop, across) = sides_of(model.high_size), sides_of(model.unet.image_size)
    corners = () if model.crop_size is None else ((height - of_crop, width - across),) * count
    return Batch(low, high, tuple(range(count)), classes=classes, corners=corners)


def step_of(model: ModelConfig, setting: Setting, compiled: bool) -> Callable[[int], object]:
    """Images -> one training step of so many."""
    set_gpu_arithmetic(setting.precision, tunes=True)
    state = create_state(model, OptimizerConfig(), 0, setting.device)
    trainer = Trainer(model, OptimizerConfig(), 0)
    forward = accelerate(state.model.train(), setting.precision, "default" if compiled else None)
    return lambda count: trainer.step(state, forward, [batch_of(model, count, setting.device)])


def fits(setting: Setting) -> Iterator[Finding]:
    """One training step of every preset's network at full width: its peak memory against the budget."""
    for name, (model, count) in setting.stages.items():
        budget = training_memory(model, setting.precision, count).total
        setting.peak_memory()
        try:
            step = step_of(model, setting, False)
            seconds = setting.seconds_of(lambda step=step, count=count: step(count), 1)
        except torch.OutOfMemoryError as error:
            yield {
                "network": name,
                "images": count,
                "budget_bytes": budget,
                "out_of_memory": str(error).splitlines()[0],
            }
            continue
        yield {
            "network": name,
            "images": count,
            "budget_bytes": budget,
            "peak_bytes": setting.peak_memory(),
            "seconds": seconds,
        }
        if setting.on_gpu:
            torch.cuda.empty_cache()


def utilisation(setting: Setting) -> Iterator[Finding]:
    """MFU of a training step, compiled and eager, by images at a time, and the kernels that take most of it."""
    ways = ((setting.main, True), (setting.main, False), (setting.second, True))
    for name, compiled in ways if setting.on_gpu else ((setting.main, False), (setting.second, False)):
        model, count = setting.stages[name]
        step = step_of(model, setting, compiled)
        for found in mfu_by_images(setting, model, count, step):
            yield {"network": name, "compiled": compiled, **found}
        yield {"network": name, "compiled": compiled, "kernels": kernels_of(lambda step=step, n=count: step(n))}
        del step
        if setting.on_gpu:
            torch.cuda.empty_cache()


def mfu_by_images(setting: Setting, model: ModelConfig, count: int, step: Callable[[int], object]) -> Iterator[Finding]:
    """MFU of a step of a preset's micro-batch, of twice and of four times as many images, as far as they fit."""
    flops, peak = forward_flops(model.unet) * TRAINING_FACTOR, peak_flops(setting.device, setting.precision)
    for images in (count, 2 * count, 4 * count):
        if images > setting.most_images and images > count:
            return
        setting.peak_memory()
        try:
            seconds = setting.seconds_of(lambda images=images: step(images))
        except torch.OutOfMemoryError:
            yield {"images": images, "out_of_memory": True}
            return
        mfu = flops * images / seconds / peak if peak else None
        yield {"images": images, "seconds": seconds, "mfu": mfu, "peak_bytes": setting.peak_memory()}


def kernels_of(call: Callable[[], object]) -> list[Finding]:
    """The five operations that take most of the device's time in a call, milliseconds."""
    from torch.profiler import ProfilerActivity, profile

    on_gpu = torch.cuda.is_available()
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]) as profiler:
        call()
    key = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    events = sorted(profiler.key_averages(), key=lambda event: -getattr(event, key))
    return [{"name": event.key[:120], "ms": getattr(event, key) / 1e3, "calls": event.count} for event in events[:5]]


def sampling(setting: Setting) -> Iterator[Finding]:
    """Images a second at 10 and 100 steps, in CUDA graphs and without."""
    model, _ = setting.stages[setting.main]
    for compiled in (False, True) if setting.on_gpu else (False,):
        network = InferenceNetwork(UNet(model.unet), setting.device, setting.precision, compiled)
        for num_steps in (10, 100) if setting.on_gpu else (2,):
            stage = Stage("check", model, network, default_schedule(model.noise_schedule, num_steps))
            for count in (1, 16) if setting.on_gpu else (1,):
                images = torch.zeros(count, 3, *sides_of(model.low_size or 0), device=setting.device)
                seconds = setting.seconds_of(
                    lambda stage=stage, images=images, count=count: upscale(stage, images, range(count)), 1
                )
                yield {"graphs": compiled, "steps": num_steps, "images": count, "images_per_second": count / seconds}


def beside(setting: Setting) -> Iterator[Finding]:
    """What a step needs besides the network: noise and its host time; decoding an image, copies, floats of a batch."""
    for side, count in ((16, 2),) if not setting.on_gpu else ((256, 16), (1024, 8)):
        seeds, corners = list(range(count)), [(0, 0)] * count

        def noise(seeds: Sequence[int] = seeds, corners: Any = corners, side: int = side) -> Tensor:
            return window_noise(seeds, 0, corners, (3, side, side), setting.device)

        on_device = setting.seconds_of(noise)
        started = time.perf_counter()
        noise()
        host = time.perf_counter() - started
        pixels = np.zeros((count, side, side, 3), np.uint8)
        ready = torch.from_numpy(pixels)
        ready = ready.pin_memory() if setting.on_gpu else ready
        copy = setting.seconds_of(lambda ready=ready: ready.to(setting.device, non_blocking=True))
        there = ready.to(setting.device)
        floats = setting.seconds_of(lambda there=there: to_float(there))
        found = {"copy": copy, "floats": floats, "decode_of_one": decoding(setting, side)}
        yield {"side": side, "images": count, "noise": on_device, "noise_host": host, **found}


def decoding(setting: Setting, side: int) -> float | None:
    """Seconds of a core to decode one image of noise, the worst case; None without the decoder, kornia-rs."""
    try:
        from pipelines.images.fast_png import decode_png_rgb, encode_png
    except ImportError:
        return None
    data = encode_png(np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8))
    return setting.seconds_of(lambda: decode_png_rgb(data))


def fidelity(setting: Setting) -> Iterator[Finding]:
    """Whether noise and images are the same on a CPU, in other batches and in lower precision, in levels of 255."""
    model, seeds = setting.stages[setting.main][0], [1, 2, 3, 4]
    corners = [(0, 0)] * 4
    noises = [window_noise(seeds, 0, corners, (3, 64, 64), device).cpu() for device in ("cpu", setting.device)]
    yield {"noise_largest_difference": float((noises[0] - noises[1]).abs().max())}
    torch.manual_seed(0)
    weights = UNet(model.unet)
    torch.nn.init.normal_(weights.conv_out.weight, std=0.02)
    images = torch.rand(4, 3, *sides_of(model.low_size or 0), device=setting.device) * 2 - 1
    schedule = default_schedule(model.noise_schedule, 2 if not setting.on_gpu else 10)
    exact = None
    for precision in ("float32", "tf32", "bfloat16") if setting.on_gpu else ("float32",):
        network = UNet(model.unet)
        network.load_state_dict(weights.state_dict())
        stage = Stage("check", model, InferenceNetwork(network, setting.device, precision), schedule)
        whole = upscale(stage, images, seeds)
        parts = torch.cat([upscale(stage, images[:1], seeds[:1]), upscale(stage, images[1:], seeds[1:])])
        exact = whole if exact is None else exact
        yield {
            "precision": precision,
            "largest_difference_of_splits": float((whole - parts).abs().max()) * 127.5,
            "difference_from_float32": float((whole - exact).abs().mean()) * 127.5,
        }


def train(setting: Setting) -> Iterator[Finding]:
    """Train photos-4x on the crops for the time that is left: its regression for a third of it, then the chain."""
    crops = np.random.default_rng(0).integers(0, 256, (8, 64, 64, 3), np.uint8)
    if setting.crops:
        crops = np.load(setting.crops)
    high = torch.from_numpy(crops)
    low = torch.from_numpy(np.stack([resize_bicubic(crop, 16) for crop in crops]))
    held_out = max(2, len(crops) // 50)
    pairs = (low[held_out:], high[held_out:]), (low[:held_out], high[:held_out])
    chain, regression = (photos_model(index, setting) for index in (0, 1))
    mean = yield from train_one(setting, "regression", regression, pairs, None, setting.seconds_left / 3)
    x_up, target = upsample_bicubic(to_float(low.numpy()), 64), to_float(high.numpy())
    scale = tuple(float(value) for value in (target - x_up).std(dim=(0, 2, 3)))
    yield {"residual_scale": scale}
    chain = replace(chain, objective=replace(chain.objective, residual_scale=scale))
    yield from train_one(setting, "sr3", chain, pairs, mean, setting.seconds_left - 15)


def photos_model(index: int, setting: Setting) -> ModelConfig:
    """The model of a stage of the preset photos-4x: its chain, its regression."""
    model = photos_4x().stages[index].model
    return model if setting.on_gpu else replace(model, unet=replace(model.unet, base_channels=4))


def train_one(
    setting: Setting, name: str, model: ModelConfig, pairs: Any, mean: UNet | None, seconds: float
) -> Iterator[Finding]:
    """Train one network until its time is over, save the average's weights, and return the network."""
    from safetensors.torch import save_file

    optimizer = OptimizerConfig(learning_rate=1e-3, warmup_steps=100, gradient_clip=1.0, ema_decay=0.999)
    set_gpu_arithmetic(setting.precision, tunes=True)
    state, trainer = create_state(model, optimizer, 0, setting.device), Trainer(model, optimizer, 0, mean)
    forward = accelerate(state.model.train(), setting.precision, "default" if setting.on_gpu else None)
    (low, high), held_out = ((part.to(setting.device) for part in pair) for pair in pairs)
    batch_size = min(128 if setting.on_gpu else 4, len(high))
    generator, end, told = torch.Generator().manual_seed(0), time.monotonic() + seconds, time.monotonic()
    test = floats(*held_out)
    assert state.ema is not None
    while state.step < 1 or time.monotonic() < end:
        chosen = torch.randint(len(high), (batch_size,), generator=generator).to(setting.device)
        trainer.step(state, forward, [floats(low[chosen], high[chosen])])
        if time.monotonic() - told > 20 or state.step == 1:
            told = time.monotonic()
            yield {"training": name, "step": state.step, "held_out_loss": loss_of(trainer, state.ema, test)}
    yield {"training": name, "step": state.step, "held_out_loss": loss_of(trainer, state.ema, test)}
    tensors = {key: value.half().cpu().contiguous() for key, value in state.ema.state_dict().items()}
    save_file(tensors, setting.out / f"{name}.safetensors", {"format": "pt"})
    return state.ema


def floats(low: Tensor, high: Tensor) -> Batch:
    """A batch of uint8 pairs, (B, H, W, 3), of which a random half is flipped by the parity of its place."""
    images = [(part.permute(0, 3, 1, 2).float() / 127.5 - 1).contiguous() for part in (low, high)]
    for image in images:
        image[::2] = image[::2].flip(-1)
    return Batch(images[0], images[1], tuple(range(len(high))))


def loss_of(trainer: Trainer, network: UNet, batch: Batch) -> float:
    """The held-out loss, at noise of its own."""
    with torch.no_grad():
        return float(trainer.losses(network, batch, 0, purpose_seed=1).values.mean())


PARTS: dict[str, tuple[Callable[[Setting], Iterator[Finding]], float]] = {
    "fits": (fits, 0.15),
    "utilisation": (utilisation, 0.25),
    "sampling": (sampling, 0.15),
    "beside": (beside, 0.05),
    "fidelity": (fidelity, 0.1),
    "train": (train, 1.0),
}
"""Part -> what it does, and the share of all minutes that it may take; the last takes what is left."""


def run_part(name: str, options: argparse.Namespace) -> None:
    """Run one part in this process and print what it finds."""
    for finding in PARTS[name][0](Setting(options)):
        print(json.dumps({"part": name, **finding}), flush=True)


def run_parts(options: argparse.Namespace) -> None:
    """Run all parts, each in its own process, until the minutes are over."""
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + 60 * options.minutes
    with (out / "findings.jsonl").open("a", encoding="utf-8") as findings:

        def tell(line: str) -> None:
            print(line, flush=True)
            findings.write(line + "\n")
            findings.flush()

        device = torch.cuda.get_device_name() if options.device == "cuda" else "cpu"
        tell(json.dumps({"device": device, "torch": torch.__version__, "minutes": options.minutes}))
        for name, (_, share) in PARTS.items():
            seconds = min(60 * options.minutes * share, end - time.monotonic())
            if seconds > 0:
                for line in lines_of(name, seconds):
                    tell(line)


def lines_of(name: str, seconds: float) -> Iterator[str]:
    """What a part prints, until its time is over; then how it ended, unless it ended well."""
    command = [sys.executable, __file__, *sys.argv[1:], "--part", name, "--seconds", f"{seconds:.0f}"]
    process = subprocess.Popen(
        ["timeout", "--signal=KILL", f"{seconds:.0f}", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    yield from (line.rstrip("\n") for line in process.stdout if line.startswith("{"))
    _, errors = process.communicate()
    if process.returncode:
        last = errors.strip().splitlines()[-1:] or [""]
        yield json.dumps({"part": name, "ended": process.returncode, "seconds": round(seconds), "error": last[0]})


def main() -> None:
    """Read the options and run all parts, or one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=12)
    parser.add_argument("--out", required=True)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--crops", help="uint8 crops to train on, .npy, (N, 64, 64, 3)")
    parser.add_argument("--tiny", action="store_true", help="networks for trying this script out")
    parser.add_argument("--part", choices=PARTS)
    parser.add_argument("--seconds", type=float, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        options.seconds = options.seconds or 60 * options.minutes
        run_part(options.part, options)
    else:
        run_parts(options)


if __name__ == "__main__":
    main()
