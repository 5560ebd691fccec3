"""What all networks that a chain is sampled with have in common."""

from collections.abc import Iterable

from torch import Tensor, nn

from sr3core.hyperparameters import UNetConfig


class Network(nn.Module):
    """f(x_up, y_t, gamma). It is fully convolutional: H and W may be any multiples of size_multiple."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config

    @property
    def out_channels(self) -> int:
        """Output channels: those of the image, twice with a learned variance."""
        return self.config.image_channels * (2 if self.config.learned_variance else 1)

    @property
    def size_multiple(self) -> int:
        """H and W must be multiples of this."""
        return self.config.size_multiple

    def in_float32(self) -> Iterable[nn.Module]:
        """The layers that compute in float32 at any precision."""
        raise NotImplementedError

    def forward(
        self,
        x_up: Tensor | None,
        y_t: Tensor,
        gamma: Tensor,
        classes: Tensor | None = None,
        input_noise: Tensor | None = None,
    ) -> Tensor:
        """Predict the training target; shapes and ranges are UNet.forward's."""
        raise NotImplementedError

    def check_inputs(
        self, x_up: Tensor | None, y_t: Tensor, classes: Tensor | None, input_noise: Tensor | None
    ) -> None:
        """Check forward's arguments.

        Raises:
            ValueError: H or W is not a multiple of size_multiple, or x_up, classes or input_noise do not match the
                configuration.
        """
        if (x_up is not None) != self.config.conditional:
            raise ValueError(f"x_up is {'missing' if self.config.conditional else 'not wanted'}")
        if classes is not None and self.config.num_classes is None:
            raise ValueError("classes are not wanted")
        if input_noise is not None and not self.config.input_noise:
            raise ValueError("input_noise is not wanted")
        if y_t.shape[-1] % self.size_multiple or y_t.shape[-2] % self.size_multiple:
            raise ValueError(f"height and width must be multiples of {self.size_multiple}, got {tuple(y_t.shape[-2:])}")
