"""Whether a model takes the channels of the data."""

from pipelines.settings.train import TrainConfig
from sr3core.errors import DataError
from sr3core.samples.spec import SampleSpec
from sr3core.sizes import describe


def check_channels(directory: str, spec: SampleSpec | None, config: TrainConfig) -> None:
    """Check that a stage's model takes RGB images, or the fields that there are.

    Args:
        directory: of the data, for the message.
        spec: the channels of fields; None for images.
        config: the stage.

    Raises:
        DataError: it does not; names the preset that does.
    """
    model, unet = config.model, config.model.unet
    if spec is None:
        if not model.bounded or unet.image_channels != 3 or unet.extra_channels:
            raise DataError(f"{directory} holds RGB images, and stage {config.name} is for fields")
        return
    if model.crop_size is not None:
        raise DataError(
            f"unet.image_size: stage {config.name} would train on crops of {describe(model.crop_size)}, and those of"
            f" fields are cut by `sr3 prepare`: prepare a stage of {describe(model.crop_size)} cells, with"
            " --crops-per-image"
        )
    found = (len(spec.high), spec.num_extra, spec.is_bounded)
    if found != (unet.image_channels, unet.extra_channels, model.bounded):
        names = ", ".join(channel.name for channel in spec.high)
        raise DataError(
            f"{directory} holds fields ({names}; {spec.num_extra} further channels), and stage {config.name} is for"
            f" {unet.image_channels} channels and {unet.extra_channels} further ones: `sr3 train fields` takes the"
            " numbers from the data"
        )
