"""The weights that can be imported: what their authors published of their networks, training and sampling.

Configurations: config/sr_sr3_16_128.json and config/sr_sr3_64_512.json of the re-implementation's repository, and the
flags under "Upsampling" in guided-diffusion's README.md.
"""

from dataclasses import dataclass

import numpy as np

from pipelines.settings.train import TrainConfig
from sr3core.diffusion.schedules import InferenceSchedule, training_gammas
from sr3core.hyperparameters import (
    ModelConfig,
    NoiseScheduleConfig,
    ObjectiveConfig,
    OptimizerConfig,
    SamplerConfig,
    UNetConfig,
)

JANSPIRY = "https://github.com/Janspiry/Image-Super-Resolution-via-Iterative-Refinement"
GUIDED_DIFFUSION = "https://github.com/openai/guided-diffusion"


@dataclass(frozen=True, slots=True)
class Published:
    """One published network."""

    files: str
    """What its files are called."""
    source: str
    """Its repository."""
    trained_on: str
    """Its images, in a sentence for the model card."""
    prefix: str
    """What the names of its parameters begin with."""
    marker: str
    """A parameter that files of this kind have, of any size."""
    stage: TrainConfig
    """The network and its training, as far as sampling and the model card need it."""
    num_steps: int
    """Steps of its authors' sampling, by Equation (4)'s variance or the learned one."""

    @property
    def schedule(self) -> InferenceSchedule:
        """Its authors' inference schedule: evenly spaced steps of training, the first and the last among them."""
        levels = training_gammas(self.stage.model.noise_schedule)
        kept = 1 + np.round(np.linspace(0, len(levels) - 2, self.num_steps)).astype(int)
        gammas = tuple(float(gamma) for gamma in (1.0, *levels[kept]))
        return InferenceSchedule(gammas=gammas, sampler=SamplerConfig(variance=0.0), name=f"authors-{self.num_steps}")


def _iterative_refinement(low: int, batch: int, rate: float, unet: UNetConfig) -> Published:
    model = ModelConfig(
        low_size=low,
        high_size=unet.image_size,
        unet=unet,
        noise_schedule=NoiseScheduleConfig(num_steps=2000, beta_first=1e-6, beta_last=1e-2),
        objective=ObjectiveConfig(norm=1, gamma_uniform_in="sqrt_gamma"),
    )
    stage = TrainConfig(
        name=f"{low}-{unet.image_size}",
        model=model,
        optimizer=OptimizerConfig(learning_rate=rate, warmup_steps=0, ema_decay=0.0),
        batch_size=batch,
        num_lanes=batch,
    )
    return Published(
        files="I*_E*_gen.pth",
        source=JANSPIRY,
        trained_on="FFHQ, 70,000 faces from Flickr, by the authors of the repository.",
        prefix="denoise_fn.",
        marker="denoise_fn.downs.0.weight",
        stage=stage,
        num_steps=2000,
    )


def janspiry_16_128() -> Published:
    """16 -> 128 faces."""
    unet = UNetConfig(
        image_size=128,
        base_channels=64,
        channel_multipliers=(1, 2, 4, 8, 8),
        num_res_blocks=2,
        attention_sizes=(16,),
        dropout=0.2,
        architecture="refinement",
        norm_groups=32,
    )
    return _iterative_refinement(16, 4, 1e-4, unet)


def janspiry_64_512() -> Published:
    """64 -> 512 faces."""
    unet = UNetConfig(
        image_size=512,
        base_channels=64,
        channel_multipliers=(1, 2, 4, 8, 16),
        num_res_blocks=1,
        attention_sizes=(),
        architecture="refinement",
        norm_groups=16,
    )
    return _iterative_refinement(64, 2, 3e-6, unet)


def guided_diffusion_64_256() -> Published:
    """64 -> 256 natural images."""
    unet = UNetConfig(
        image_size=256,
        base_channels=192,
        channel_multipliers=(1, 1, 2, 2, 4, 4),
        num_res_blocks=2,
        attention_sizes=(32, 16, 8),
        num_heads=4,
        learned_variance=True,
        architecture="guided_diffusion",
    )
    model = ModelConfig(
        low_size=64,
        high_size=256,
        unet=unet,
        noise_schedule=NoiseScheduleConfig(num_steps=1000, beta_first=1e-4, beta_last=2e-2),
        objective=ObjectiveConfig(norm=2, gamma_uniform_in="steps", bound_weight=0.001),
    )
    return Published(
        files="64_256_upsampler.pt",
        source=GUIDED_DIFFUSION,
        trained_on="The ILSVRC 2012 subset of ImageNet, by the authors of the repository.",
        prefix="",
        marker="input_blocks.0.0.weight",
        stage=TrainConfig(name="64-256", model=model),
        num_steps=250,
    )


def all_published() -> tuple[Published, ...]:
    """Every network that can be imported."""
    return janspiry_16_128(), janspiry_64_512(), guided_diffusion_64_256()
