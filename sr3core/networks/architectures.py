"""The networks of Table A.1 and section 4, one function per row. This module does not import torch."""

from sr3core.hyperparameters import UNetConfig


def unet_16_128() -> UNetConfig:
    """Table A.1, row 1: 16 -> 128 faces, 550M parameters; dropout 0.2 (section 4, Training Details)."""
    return UNetConfig(
        image_size=128, base_channels=128, channel_multipliers=(1, 2, 4, 8, 8), num_res_blocks=3, dropout=0.2
    )


def unet_64_256() -> UNetConfig:
    """Table A.1, row 2: 64 -> 256 faces and natural images, 625M parameters."""
    return UNetConfig(image_size=256, base_channels=128, channel_multipliers=(1, 2, 4, 4, 8, 8), num_res_blocks=3)


def unet_64_512() -> UNetConfig:
    """Table A.1, row 3: 64 -> 512 faces, 625M parameters."""
    return UNetConfig(image_size=512, base_channels=64, channel_multipliers=(1, 2, 4, 8, 8, 16, 16), num_res_blocks=3)


def unet_256_1024() -> UNetConfig:
    """Table A.1, row 4: 256 -> 1024 faces, 150M parameters."""
    return UNetConfig(
        image_size=1024, base_channels=16, channel_multipliers=(1, 2, 4, 8, 16, 32, 32, 32), num_res_blocks=2
    )


def unet_base_64() -> UNetConfig:
    """Section 4.3's unconditional DDPM of 64x64 faces, 87M parameters.

    The paper gives no sizes. These are the ones that DDIM's authors used for a DDPM on 64x64 faces (CelebA). Their
    network has 79M: our BigGAN blocks resample in two convolutions where DDPM's have one. No dropout (section 4).
    """
    return UNetConfig(
        image_size=64,
        base_channels=128,
        channel_multipliers=(1, 2, 2, 2, 4),
        num_res_blocks=2,
        conditional=False,
    )


def unet_improved_64(base_channels: int = 192) -> UNetConfig:
    """Section 4.3's class-conditional Improved DDPM of 64x64 ImageNet, 280M parameters.

    The paper gives no sizes. These are Nichol and Dhariwal's (2021) for ImageNet 64x64: widths of 64, 96, 128 and 192
    with 30M, 68M, 120M and 270M parameters; the last is their best class-conditional one. Deviation: the blocks are
    SR3's, conditioned on gamma instead of t, by adding an embedding instead of a scale and shift. Counts are within 4%.
    """
    return UNetConfig(
        image_size=64,
        base_channels=base_channels,
        channel_multipliers=(1, 2, 3, 4),
        num_res_blocks=3,
        attention_sizes=(16, 8),
        conditional=False,
        num_classes=1000,
        num_heads=4,
        learned_variance=True,
    )


def unet_tiny(image_size: int, base_channels: int = 32) -> UNetConfig:
    """A network of about a million parameters for a laptop and for tests; not in the paper."""
    return UNetConfig(
        image_size=image_size,
        base_channels=base_channels,
        channel_multipliers=(1, 2, 2),
        num_res_blocks=1,
        attention_sizes=(8,),
    )
