"""Cascades (section 4.3): a chain of stages, each conditioned on the output of the one before; images from noise."""

from collections.abc import Sequence

import torch
from torch import Tensor

from sr3core.diffusion.guidance import as_denoiser, check_classes
from sr3core.diffusion.noise import ImageNoise
from sr3core.diffusion.sampling import Progress, sample
from sr3core.errors import ConfigError
from sr3core.images.resize import upsample
from sr3core.randomness import derive_seed
from sr3core.regression import with_static
from sr3core.sizes import sides_of
from sr3core.transfer import send
from sr3core.upscaling.stage import Stage, check_chain, fill, pad, refine, with_noise
from sr3core.upscaling.tile_grid import Tiling
from sr3core.upscaling.tiles import upscale_in_tiles


def upscale(
    stage: Stage,
    low: Tensor,
    seeds: Sequence[int],
    progress: Progress | None = None,
    static: Tensor | None = None,
) -> Tensor:
    """Upscale images of any size by one stage. Each result depends on its own image and seed alone.

    A stage that was trained on crops upscales what is larger than a tile in tiles, as `run_tiled_cascade` does.

    Args:
        stage: the stage.
        low: (B, 3, h, w) in [-1, 1]; for a model of fields (B, C, h, w), C without the static maps.
        seeds: one per image.
        progress: called after every denoising step.
        static: static maps, (B, K, H, W); None for a model without any.

    Returns:
        (B, 3, H, W) in [-1, 1], where (H, W) is stage.model.enlarged(h, w); fields (B, C, H, W), not clipped.
    """
    rows, columns = stage.model.enlarged(*low.shape[-2:])
    if stage.model.crop_size is not None and max(rows, columns) > Tiling().tile_of(stage)[0]:
        return upscale_in_tiles(stage, low, seeds, progress, static)
    noisy, low = (fill(stage.model, image) for image in (with_noise(stage, low, seeds), low))
    height, width = stage.model.enlarged(*low.shape[-2:])
    multiple = stage.size_multiple
    x_up = upsample(noisy, (height, width), stage.model.upsampling)
    x_up = with_static(x_up, None if static is None else pad(static, height, width))
    x_up = pad(x_up, height + -height % multiple, width + -width % multiple)
    noise = ImageNoise([derive_seed(seed, stage.name) for seed in seeds], low.device)
    return refine(stage, low, x_up, noise, progress)[..., :rows, :columns]


def run_cascade(stages: Sequence[Stage], low: Tensor, seeds: Sequence[int], progress: Progress | None = None) -> Tensor:
    """Upscale through all stages: (B, 3, h, w) -> (B, 3, M h, M w), where M is the product of the magnifications.

    progress is called with the denoising steps done and the total, both counted over all stages.
    """
    check_chain([(stage.name, stage.model) for stage in stages])
    budgets = [stage.num_steps for stage in stages]
    image = low
    for index, stage in enumerate(stages):
        image = upscale(stage, image, seeds, _part_of(progress, sum(budgets[:index]), sum(budgets)))
    return image


def generate(
    stages: Sequence[Stage],
    seeds: Sequence[int],
    classes: Sequence[int] | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """Generate images from noise: the base model, then every super-resolution stage (section 4.3).

    Args:
        stages: the base model, then any number of super-resolution stages in order of size.
        seeds: one per image; it determines the image's noise in all stages.
        classes: class of each image, for the base model; None if the model has no classes, or for unconditional images.
        progress: called with the denoising steps done and the total, both counted over all stages.

    Returns:
        (B, 3, H, W) in [-1, 1], of the last stage's size and on its device.

    Raises:
        ConfigError: the first stage is not a base model, the stages' sizes do not match, or the base model does not
            accept these classes.
    """
    check_chain([(stage.name, stage.model) for stage in stages])
    base, *rest = stages
    steps = sum(stage.num_steps for stage in stages)
    image = draw(base, seeds, classes, _part_of(progress, 0, steps))
    if not rest:
        return image
    return run_cascade(rest, image, seeds, _part_of(progress, base.num_steps, steps))


def _part_of(progress: Progress | None, done_before: int, total: int) -> Progress | None:
    """A progress callback for one stage that reports to `progress` in steps of the whole cascade."""
    if progress is None:
        return None

    def report(step: int, _: int) -> None:
        progress(done_before + step, total)

    return report


def draw(
    base: Stage,
    seeds: Sequence[int],
    classes: Sequence[int] | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """Sample a base model: (B, 3, H, W) in [-1, 1]. Arguments and errors are those of generate."""
    size = base.model.high_size
    if base.model.kind != "base" or base.schedule is None:
        raise ConfigError(f"stage {base.name} is not a base model; generating images from noise starts with one")
    labels, guidance = None, base.schedule.sampler.guidance
    if classes is not None:
        check_classes(base.model, classes, guidance)
        labels = send(torch.tensor(classes, dtype=torch.int64), base.device)
    denoise = as_denoiser(base.model, base.network, labels, guidance)
    noise = ImageNoise([derive_seed(seed, base.name) for seed in seeds], base.device)
    shape = (len(seeds), base.model.unet.image_channels, *sides_of(size))
    image = sample(denoise, None, shape, base.schedule, noise, progress)
    return image.clamp(-1, 1)
