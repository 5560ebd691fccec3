"""The consistency projection: y_0_hat <- y_0_hat + U (x - D y_0_hat), iterated back-projection (Irani and Peleg, 1991).

D is the antialiased bicubic downsampling that made x from the original, without rounding; U is the upsampling of x_up.
"""

import torch
from torch import Tensor
from torch.nn import functional

from sr3core.images.resize import bicubic_weights


class BackProjection:
    """One iteration of the projection, for one batch of low-resolution images.

    An iteration multiplies the error x - D y_0_hat by I - D U, which removes most of it. The arithmetic is in float64,
    so that the order of summation, which depends on the batch, has no effect on the float32 result.

    Args:
        low: x, (B, C, h, w) in [-1, 1].
        size: (height, width) of the part of y_0_hat that corresponds to x. The rest, to the right and below, is
            padding; it receives the change of the last row and column.
    """

    def __init__(self, low: Tensor, size: tuple[int, int]) -> None:
        self._low, self._size = low.double(), size
        pairs = list(zip(low.shape[-2:], size, strict=True))
        # Created once: a copy to the device inside the chain would make every step wait.
        self._down = [_weights(high, small, low) for small, high in pairs]
        self._up = [_weights(small, high, low) for small, high in pairs]

    def __call__(self, y_0_hat: Tensor) -> Tensor:
        """Move y_0_hat, (B, C, H, W), towards the images that are consistent with x."""
        height, width = self._size
        residual = self._low - _apply(self._down, y_0_hat[..., :height, :width].double())
        change = _apply(self._up, residual).to(y_0_hat.dtype)
        padding = (0, y_0_hat.shape[-1] - width, 0, y_0_hat.shape[-2] - height)
        return y_0_hat + functional.pad(change, padding, mode="replicate")


def _weights(in_size: int, out_size: int, like: Tensor) -> Tensor:
    return torch.as_tensor(bicubic_weights(in_size, out_size), device=like.device)


def _apply(weights: list[Tensor], images: Tensor) -> Tensor:
    rows, columns = weights
    return rows @ images @ columns.T  # (H', H) @ (B, C, H, W) @ (W, W') -> (B, C, H', W')
