"""Settings of `sr3 import`."""

from dataclasses import dataclass

from sr3core.hyperparameters import require

NUM_CLASSES = 1000
"""Classes of the ILSVRC subset of ImageNet."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportConfig:
    """How another program's weights become a model folder."""

    image_class: int | None = None
    """ImageNet class, 0 to 999, that the model takes all images to be of, if its network was trained with classes; by
    default the mean of the embeddings of all classes."""

    def __post_init__(self) -> None:
        index = self.image_class
        require(
            index is None or 0 <= index < NUM_CLASSES, f"image_class: {index} is not in 0..{NUM_CLASSES - 1}; give one"
        )
