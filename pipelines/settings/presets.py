"""Presets: runs by name, as typed functions. The paper's (section 4, Table A.1), the demo's and small ones."""

from collections.abc import Callable

from pipelines.settings.paper_stages import (
    BLUR_PROBABILITY,
    ddpm_stage,
    improved_ddpm_stage,
    on_crops,
    sr3_stage,
)
from pipelines.settings.stages import stage_name
from pipelines.settings.train import PlacementConfig, RunConfig, TrainConfig
from sr3core.config import did_you_mean, override
from sr3core.degradations.settings import DegradationConfig
from sr3core.errors import ConfigError
from sr3core.hyperparameters import (
    ModelConfig,
    NoiseScheduleConfig,
    ObjectiveConfig,
    OptimizerConfig,
    UNetConfig,
)
from sr3core.networks.architectures import (
    unet_16_128,
    unet_64_256,
    unet_64_512,
    unet_256_1024,
)
from sr3core.sizes import Size


def regression_of(stage: TrainConfig, learning_rate: float = 1e-5) -> TrainConfig:
    """The regression baseline of an SR3 stage: the same network, mean squared error, learning rate 1e-5 (section 4)."""
    return override(
        stage,
        name=f"{stage.name}-regression",
        model__kind="regression",
        model__objective=ObjectiveConfig(norm=2),
        optimizer__learning_rate=learning_rate,
        augmentation__blur_probability=0.0,
    )


def faces_16_128() -> RunConfig:
    """Table A.1, row 1, and Figure 5: 16 -> 128 faces."""
    return RunConfig(name="faces-16-128", stages=(sr3_stage(16, unet_16_128()),))


def faces_64_512() -> RunConfig:
    """Table A.1, row 3, and Figure 4: 64 -> 512 faces."""
    return RunConfig(name="faces-64-512", stages=(sr3_stage(64, unet_64_512()),))


def faces_512_crops() -> RunConfig:
    """64 -> 512 faces on crops of 256: a quarter of the work."""
    return RunConfig(name="faces-512-crops", stages=(on_crops(sr3_stage(64, unet_64_512()), 256),))


def faces_1024_crops() -> RunConfig:
    """256 -> 1024 faces on crops of 256: a sixteenth of the work."""
    stage = sr3_stage(256, unet_256_1024(), blur=True)
    return RunConfig(name="faces-1024-crops", stages=(on_crops(stage, 256),))


def imagenet_64_256() -> RunConfig:
    """Table A.1, row 2, and Figure 3: 64 -> 256 natural images, trained with blur (Table 5)."""
    return RunConfig(name="imagenet-64-256", stages=(sr3_stage(64, unet_64_256(), blur=True),))


def table_1() -> RunConfig:
    """Table 1: 16 -> 128 faces, SR3 and its regression baseline."""
    return with_regression("table-1", faces_16_128())


def table_2() -> RunConfig:
    """Tables 2 and 3: 64 -> 256 natural images, SR3 and its regression baseline."""
    return with_regression("table-2", imagenet_64_256())


def with_regression(name: str, run: RunConfig) -> RunConfig:
    """Add the regression baseline to a run of one SR3 stage."""
    (stage,) = run.stages
    return RunConfig(name=name, stages=(stage, regression_of(stage)))


def faces_16x() -> RunConfig:
    """Section 4.3: faces enlarged 16 times, 64 -> 256 -> 1024, the stages trained in parallel."""
    stages = (sr3_stage(64, unet_64_256(), blur=True), sr3_stage(256, unet_256_1024(), blur=True))
    return RunConfig(name="faces-16x", stages=stages)


def faces_cascade() -> RunConfig:
    """Section 4.3, Figure 8: 1024x1024 faces from noise, base 64 -> 256 -> 1024, the stages trained in parallel."""
    return RunConfig(name="faces-cascade", stages=(ddpm_stage(), *faces_16x().stages))


def imagenet_cascade() -> RunConfig:
    """Table 4, Figure 9: 256x256 natural images of given classes from noise, base 64 -> 256, trained in parallel."""
    return RunConfig(name="imagenet-cascade", stages=(improved_ddpm_stage(), *imagenet_64_256().stages))


def table_5_no_blur() -> RunConfig:
    """Table 5, row 1: 64 -> 256 natural images without blur; rows 2 and 4 are imagenet-64-256."""
    return RunConfig(name="table-5-no-blur", stages=(_arm(imagenet_64_256().stages[0], blur=False),))


def table_5_l2() -> RunConfig:
    """Table 5, row 3: 64 -> 256 natural images with blur and the L2 norm."""
    return RunConfig(name="table-5-l2", stages=(_arm(imagenet_64_256().stages[0], norm=2),))


def table_5(stage: TrainConfig, num_seeds: int = 1) -> RunConfig:
    """Table 5's arms of any SR3 stage: with blur and L1 (its rows 2 and 4), without blur (row 1), with L2 (row 3).

    Args:
        stage: what the arms have in common; if it has a blur probability, the blurred arms use it.
        num_seeds: trainings of each arm, with different seeds.
    """
    arms = {"blur-l1": _arm(stage), "no-blur": _arm(stage, blur=False), "l2": _arm(stage, norm=2)}
    stages = [
        override(arm, name=f"{stage.name}-{name}" + (f"-seed-{k}" if k else ""), seed=stage.seed + k)
        for k in range(num_seeds)
        for name, arm in arms.items()
    ]
    return RunConfig(name=f"table-5-{stage.name}", stages=tuple(stages))


def _arm(stage: TrainConfig, blur: bool = True, norm: int = 1) -> TrainConfig:
    share = (stage.augmentation.blur_probability or BLUR_PROBABILITY) if blur else 0.0
    return override(stage, augmentation__blur_probability=share, model__objective__norm=norm)


def small_stage(
    low_size: Size | None, high_size: Size, base_channels: int, num_steps: int, num_workers: int
) -> TrainConfig:
    """A stage that learns in minutes on CPUs, for low_size None a base model; not in the paper.

    Deviation: v instead of epsilon, cosine noise levels, a learning rate of 2e-3 and an average over 100 steps, because
    a few hundred steps have to suffice: after 550 steps of the 32 -> 64 stage, cosine levels gained 1.5 dB over linear
    ones.
    """
    return TrainConfig(
        name=stage_name(low_size, high_size),
        model=ModelConfig(
            kind="base" if low_size is None else "sr3",
            low_size=low_size,
            high_size=high_size,
            unet=UNetConfig(
                image_size=high_size,
                base_channels=base_channels,
                channel_multipliers=(1, 2, 2),
                num_res_blocks=1,
                attention_sizes=(8, 12),
                conditional=low_size is not None,
            ),
            noise_schedule=NoiseScheduleConfig(family="cosine"),
            objective=ObjectiveConfig(target="v"),
        ),
        optimizer=OptimizerConfig(learning_rate=2e-3, warmup_steps=50, gradient_clip=1.0, ema_decay=0.99),
        batch_size=16,
        num_steps=num_steps,
        num_lanes=8,
        shuffle_window=256,
        validation_every=100,
        num_validation_images=32,
        checkpoint_every=100,
        log_every=20,
        placement=PlacementConfig(num_workers=num_workers, cpus_per_worker=0.5),
    )


def on_upsampled(stage: TrainConfig) -> TrainConfig:
    """The stage with a chain that draws what bicubic upsampling leaves, which short trainings learn much faster.

    Deviation: the paper's chain draws the image.
    """
    return override(stage, model__objective__residual="upsampled")


def demo() -> RunConfig:
    """A cascade 12 -> 24 -> 48 and the regression baseline 12 -> 48; they train in minutes on two CPU cores."""
    baseline = regression_of(small_stage(12, 48, base_channels=16, num_steps=200, num_workers=1), learning_rate=1e-3)
    return RunConfig(
        name="demo",
        stages=(
            on_upsampled(small_stage(12, 24, base_channels=32, num_steps=500, num_workers=1)),
            on_upsampled(small_stage(24, 48, base_channels=16, num_steps=500, num_workers=2)),
            baseline,
        ),
    )


def small_16_64() -> RunConfig:
    """One small stage 16 -> 64, for a first try with your own images on a laptop; not in the paper."""
    stage = on_upsampled(small_stage(16, 64, base_channels=16, num_steps=2000, num_workers=1))
    return RunConfig(name="small-16-64", stages=(stage,))


def small_cascade() -> RunConfig:
    """Images from noise on a laptop: base 32 -> 64, unconditional."""
    base = small_stage(None, 32, base_channels=32, num_steps=4000, num_workers=1)
    stage = on_upsampled(small_stage(32, 64, base_channels=16, num_steps=2000, num_workers=1))
    return RunConfig(name="small-cascade", stages=(base, stage))


def small_classes() -> RunConfig:
    """32x32 images of ten classes from noise on a laptop, with learned variance, for guidance; not in the paper."""
    stage = override(
        small_stage(None, 32, base_channels=32, num_steps=4000, num_workers=1),
        model__unet__num_classes=10,
        model__unet__num_heads=4,
        model__unet__learned_variance=True,
        model__objective=ObjectiveConfig(
            norm=2, target="v", gamma_uniform_in="steps", bound_weight=0.001, class_dropout=0.1
        ),
    )
    return RunConfig(name="small-classes", stages=(stage,))


def photos_4x() -> RunConfig:
    """Photos 4 times larger, from native crops of 64x64: the model in the box, and its baseline; not in the paper."""
    # Most of the width is at the coarse levels, so that a photo of 512x512 takes about a minute on two CPU cores.
    stage = override(
        small_stage(16, 64, base_channels=16, num_steps=4000, num_workers=1),
        model__unet__channel_multipliers=(1, 2, 4, 4),
        model__unet__attention_sizes=(),
        model__objective__residual="regression",
        optimizer=OptimizerConfig(learning_rate=1e-3, warmup_steps=100, gradient_clip=1.0, ema_decay=0.995),
        validation_every=250,
        num_validation_images=128,
        checkpoint_every=250,
    )
    baseline = override(regression_of(stage, learning_rate=1e-3), num_steps=2000)
    return RunConfig(name="photos-4x", stages=(stage, baseline))


def photos_4x_real() -> RunConfig:
    """Photos 4 times larger whose inputs are blurred, noisy and compressed: the chain and the noise of SR3+."""
    stage, _ = photos_4x().stages
    real = override(
        stage,
        model__objective__residual="none",
        model__unet__input_noise=0.5,
        degradation=DegradationConfig(order=2),
    )
    return RunConfig(name="photos-4x-real", stages=(real,))


FIELDS = "fields"
"""Name of the preset whose sizes and channels are those of the data."""


def fields() -> RunConfig:
    """Fields: any channels, of the sizes of the data."""
    # The sizes here are put in the place of the data's, which are read when the run is created (runs/field_samples.py).
    stage = override(
        small_stage(16, 64, base_channels=32, num_steps=20_000, num_workers=1),
        name=FIELDS,
        model__unet__attention_sizes=(),
        model__bounded=False,
        model__objective__residual="regression",
        optimizer=OptimizerConfig(learning_rate=1e-3, warmup_steps=100, gradient_clip=1.0, ema_decay=0.995),
        augmentation__flip=False,  # a mirrored wind is wrong
        validation_every=500,
        num_validation_images=64,
        checkpoint_every=500,
    )
    return RunConfig(name=FIELDS, stages=(stage, override(regression_of(stage, learning_rate=1e-3), num_steps=5000)))


_ALL = (
    *(demo, small_16_64, small_cascade, small_classes, photos_4x, photos_4x_real, fields),
    *(faces_16_128, faces_64_512, faces_16x, imagenet_64_256),
    *(faces_512_crops, faces_1024_crops),
    *(faces_cascade, imagenet_cascade),
    *(table_1, table_2, table_5_no_blur, table_5_l2),
)

PRESETS: dict[str, Callable[[], RunConfig]] = {make().name: make for make in _ALL}


def preset(name: str) -> RunConfig:
    """Return a preset by name.

    Raises:
        ConfigError: there is none of that name; suggests the most similar one.
    """
    if name not in PRESETS:
        raise ConfigError(f"unknown preset {name!r}, {did_you_mean(name, PRESETS)}")
    return PRESETS[name]()
