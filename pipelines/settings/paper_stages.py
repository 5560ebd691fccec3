"""The paper's stages (section 4, Table A.1), of which its presets are made."""

from pipelines.settings.train import PlacementConfig, TrainConfig
from sr3core.config import override
from sr3core.hyperparameters import AugmentationConfig, ModelConfig, NoiseScheduleConfig, ObjectiveConfig, UNetConfig
from sr3core.networks.architectures import unet_base_64, unet_improved_64
from sr3core.sizes import Size, sides_of

BLUR_PROBABILITY = 0.5
PAPER_PLACEMENT = PlacementConfig(num_workers=8, use_gpu=True, cpus_per_worker=6.0)

MICRO_BATCHES: dict[Size, int] = {128: 1, 256: 2, 512: 4, 1024: 4}
"""Output size -> micro-batches of the paper's networks with which 8 GPUs of 80 GB hold a batch, 10% to spare."""


def sr3_stage(low_size: int, unet: UNetConfig, blur: bool = False) -> TrainConfig:
    """An SR3 stage, trained as in the paper: L1, Adam at 1e-4 after 10k warm-up steps, batch 256, 1M steps.

    Deviation: in bfloat16. The paper does not say; in float32 three of its four networks exceed 80 GB.
    """
    return TrainConfig(
        name=f"{low_size}-{unet.image_size}",
        precision="bfloat16",
        num_micro_batches=MICRO_BATCHES[unet.image_size],
        model=ModelConfig(low_size=low_size, high_size=unet.image_size, unet=unet),
        augmentation=AugmentationConfig(blur_probability=BLUR_PROBABILITY if blur else 0.0),
        placement=PAPER_PLACEMENT,
    )


def ddpm_stage() -> TrainConfig:
    """Section 4.3's unconditional base model, a DDPM: mean squared error, otherwise trained like SR3.

    Deviation: gamma varies within the steps, as SR3's does, so that any inference schedule can be searched.
    """
    unet = unet_base_64()
    model = ModelConfig(kind="base", high_size=unet.image_size, unet=unet, objective=ObjectiveConfig(norm=2))
    return TrainConfig(name=f"base-{unet.image_size}", model=model, precision="bfloat16", placement=PAPER_PLACEMENT)


def improved_ddpm_stage() -> TrainConfig:
    """Section 4.3's class-conditional base model, an Improved DDPM: cosine levels, learned variance, hybrid loss.

    Deviation: T is 2000 ("in all our experiments", section 2.4) instead of Improved DDPM's 4000. Classes are never
    dropped in training; set objective.class_dropout to 0.1 for guidance.
    """
    unet = unet_improved_64()
    model = ModelConfig(
        kind="base",
        high_size=unet.image_size,
        unet=unet,
        noise_schedule=NoiseScheduleConfig(family="cosine"),
        objective=ObjectiveConfig(norm=2, gamma_uniform_in="steps", bound_weight=0.001),
    )
    return TrainConfig(name=f"base-{unet.image_size}", model=model, precision="bfloat16", placement=PAPER_PLACEMENT)


def on_crops(stage: TrainConfig, size: int) -> TrainConfig:
    """The stage, trained on random crops of so many pixels: without micro-batches they fit 8 GPUs of 80 GB.

    Deviation: the paper trains on whole images. Imagen (Saharia et al., 2022) trains its 256 -> 1024 stage on crops,
    without attention. Here attention stays at the level where Table A.1 has it, so that the weights are those of the
    network for whole images, and each head has 64 channels, which a GPU's fused attention needs.
    """
    unet = stage.model.unet
    attention = tuple(side * size // min(sides_of(unet.image_size)) for side in unet.attention_sizes)
    crops = override(unet, image_size=size, attention_sizes=attention, head_channels=64)
    return override(stage, model__unet=crops, num_micro_batches=1)
