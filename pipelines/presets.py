"""Runs by name, as typed functions: the paper's (section 4, Table A.1) and the demo's. Nothing heavy is imported."""

from collections.abc import Callable

from pipelines.config import PlacementConfig, RunConfig, TrainConfig
from sr3core.architectures import unet_16_128, unet_64_256, unet_64_512, unet_256_1024
from sr3core.config import did_you_mean, override
from sr3core.errors import ConfigError
from sr3core.hyperparameters import (
    AugmentationConfig,
    ModelConfig,
    NoiseScheduleConfig,
    ObjectiveConfig,
    OptimizerConfig,
    UNetConfig,
)


def sr3_stage(low_size: int, unet: UNetConfig, blur: bool = False) -> TrainConfig:
    """An SR3 stage as the paper trains it: L1, Adam 1e-4 after 10k warm-up steps, batch 256, 1M steps."""
    return TrainConfig(
        name=f"{low_size}-{unet.image_size}",
        model=ModelConfig(low_size=low_size, high_size=unet.image_size, unet=unet),
        augmentation=AugmentationConfig(blur_probability=0.5 if blur else 0.0),
        placement=PlacementConfig(num_workers=8, use_gpu=True, cpus_per_worker=6),
    )


def regression_of(stage: TrainConfig, learning_rate: float = 1e-5) -> TrainConfig:
    """The regression baseline of an SR3 stage: the same network, mean squared error, 1e-5 (section 4)."""
    return override(
        stage,
        name=f"{stage.name}-regression",
        model__kind="regression",
        model__objective=ObjectiveConfig(norm=2),
        optimizer__learning_rate=learning_rate,
        augmentation__blur_probability=0.0,
    )


def faces_16_128() -> RunConfig:
    """Table A.1 row 1, Figure 5: 16 -> 128 faces."""
    return RunConfig(name="faces-16-128", stages=(sr3_stage(16, unet_16_128()),))


def faces_64_512() -> RunConfig:
    """Table A.1 row 3, Figure 4: 64 -> 512 faces."""
    return RunConfig(name="faces-64-512", stages=(sr3_stage(64, unet_64_512()),))


def imagenet_64_256() -> RunConfig:
    """Table A.1 row 2, Figure 3: 64 -> 256 natural images, trained with blur (Table 5)."""
    return RunConfig(name="imagenet-64-256", stages=(sr3_stage(64, unet_64_256(), blur=True),))


def table_1() -> RunConfig:
    """Table 1: 16 -> 128 faces, SR3 beside its regression baseline."""
    return with_regression("table-1", faces_16_128())


def table_2() -> RunConfig:
    """Tables 2 and 3: 64 -> 256 natural images, SR3 beside its regression baseline."""
    return with_regression("table-2", imagenet_64_256())


def with_regression(name: str, run: RunConfig) -> RunConfig:
    """A run of one SR3 stage with its regression baseline beside it."""
    (stage,) = run.stages
    return RunConfig(name=name, stages=(stage, regression_of(stage)))


def faces_cascade() -> RunConfig:
    """Section 4.3's super-resolution stages for faces, 64 -> 256 -> 1024, side by side."""
    stages = (sr3_stage(64, unet_64_256(), blur=True), sr3_stage(256, unet_256_1024(), blur=True))
    return RunConfig(name="faces-cascade", stages=stages)


def small_stage(low_size: int, high_size: int, base_channels: int, num_steps: int, num_workers: int) -> TrainConfig:
    """A stage that learns in minutes on CPUs; not in the paper.

    Deviation: v instead of epsilon, cosine noise levels, a rate of 2e-3 and an average over 100 steps, because hundreds
    of steps must do: after 550 of the 32 -> 64 stage, cosine instead of linear levels brought 1.5 dB.
    """
    return TrainConfig(
        name=f"{low_size}-{high_size}",
        model=ModelConfig(
            low_size=low_size,
            high_size=high_size,
            unet=UNetConfig(
                image_size=high_size,
                base_channels=base_channels,
                channel_multipliers=(1, 2, 2),
                num_res_blocks=1,
                attention_sizes=(8, 12),
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


def demo() -> RunConfig:
    """A cascade 12 -> 24 -> 48 and the regression baseline 12 -> 48, which train in minutes on two CPU cores."""
    baseline = regression_of(small_stage(12, 48, base_channels=16, num_steps=200, num_workers=1), learning_rate=1e-3)
    return RunConfig(
        name="demo",
        stages=(
            small_stage(12, 24, base_channels=32, num_steps=500, num_workers=1),
            small_stage(24, 48, base_channels=16, num_steps=500, num_workers=2),
            baseline,
        ),
    )


def small_16_64() -> RunConfig:
    """One small stage 16 -> 64 for a first try on one's own images, on a laptop; not in the paper."""
    stage = small_stage(16, 64, base_channels=16, num_steps=2000, num_workers=1)
    return RunConfig(name="small-16-64", stages=(stage,))


PRESETS: dict[str, Callable[[], RunConfig]] = {
    make().name: make
    for make in (demo, small_16_64, faces_16_128, faces_64_512, imagenet_64_256, faces_cascade, table_1, table_2)
}


def preset(name: str) -> RunConfig:
    """A preset by name.

    Raises:
        ConfigError: there is none; suggests the nearest.
    """
    if name not in PRESETS:
        raise ConfigError(f"unknown preset {name!r}, {did_you_mean(name, PRESETS)}")
    return PRESETS[name]()
