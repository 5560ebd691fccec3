"""The equations of sections 2.1-2.3 and appendix B that training and sampling use, one function each.

Images are float tensors (B, C, H, W); a noise level gamma or an alpha is (B,), one per image. The full reverse chain,
Equations (7) and (8), is in sampling.py; the equations that only explain the method are in theory.py.
"""

from collections.abc import Callable, Sequence

from torch import Tensor

from sr3core.hyperparameters import Target

Denoiser = Callable[[Tensor | None, Tensor, Tensor], Tensor]
"""f(x_up, y_t, gamma) -> the epsilon estimate, (B, C, H, W); x_up is None for a base model. With a learned variance the
output is (B, 2 C, H, W), which learned_variance.split_variance splits."""

Noise = Callable[[Sequence[int]], Tensor]
"""Draws standard normal noise of a given shape."""


def per_image(level: Tensor, image: Tensor) -> Tensor:
    """Reshape a level (B,) to (B, 1, 1, 1) float64, so that times() casts only the final coefficient.

    In float32, 1 - gamma has an error of 6% at the first noise levels, where it is 1e-6.

    Raises:
        ValueError: level is not of shape (B,).
    """
    if level.shape != image.shape[:1]:
        raise ValueError(f"expected one level per image, ({image.shape[0]},), got {tuple(level.shape)}")
    return level.double().view(-1, *[1] * (image.ndim - 1))  # (B,) -> (B, 1, 1, 1)


def times(coefficient: Tensor, image: Tensor) -> Tensor:
    """Multiply each image by its float64 coefficient, (B, 1, 1, 1), in the image's own type."""
    return coefficient.to(image.dtype) * image


def q_posterior(y_0: Tensor, y_t: Tensor, gamma_previous: Tensor, gamma: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (B, C, H, W) and variance (B, 1, 1, 1) of y_{t-1} given y_0 and y_t: Equation (4).

    Args:
        y_0: target images, (B, C, H, W).
        y_t: noisy images, like y_0.
        gamma_previous: gamma_{t-1}, (B,) in (0, 1].
        gamma: gamma_t, (B,) in (0, gamma_previous).
    """
    previous, now = per_image(gamma_previous, y_0), per_image(gamma, y_0)
    alpha = now / previous
    from_y_0 = previous.sqrt() * (1 - alpha) / (1 - now)
    from_y_t = alpha.sqrt() * (1 - previous) / (1 - now)
    variance = (1 - previous) * (1 - alpha) / (1 - now)
    return times(from_y_0, y_0) + times(from_y_t, y_t), variance.to(y_0.dtype)


def q_sample(y_0: Tensor, gamma: Tensor, epsilon: Tensor) -> Tensor:
    """Add noise to y_0, to noise level gamma: Equation (5).

    Args:
        y_0: target images, (B, C, H, W) in [-1, 1].
        gamma: noise level, (B,) in (0, 1].
        epsilon: standard normal noise, like y_0.

    Raises:
        ValueError: gamma is not of shape (B,).
    """
    gamma = per_image(gamma, y_0)
    return times(gamma.sqrt(), y_0) + times((1 - gamma).sqrt(), epsilon)


def denoising_loss(prediction: Tensor, target: Tensor, norm: int, weights: Tensor | None = None) -> Tensor:
    """||f_theta - epsilon||_p^p per image: Equation (6) inside the expectations.

    Args:
        prediction: the network's output, (B, C, H, W).
        target: the training target (epsilon in the paper), shaped like prediction.
        norm: p, 1 or 2.
        weights: weight of each value, at least 0, of a shape that broadcasts to prediction's; None for 1 everywhere.

    Returns:
        (B,) float32: the mean over an image's values, that is the paper's sum divided by C H W.
    """
    error = prediction.float() - target.float()
    losses = error.abs() if norm == 1 else error.square()
    losses = losses if weights is None else losses * weights
    return losses.flatten(1).mean(1)  # (B, C, H, W) -> (B, C H W) -> (B,)


def reverse_step(mean: Tensor, variance: Tensor, z: Tensor) -> Tensor:
    """Draw y_{t-1} given y_t and x: Equation (9), N(mean, variance I); z is standard normal, or 0 at t = 1."""
    return mean + variance.sqrt() * z


def predict_y_0(y_t: Tensor, gamma: Tensor, epsilon_hat: Tensor) -> Tensor:
    """Estimate y_0 from the noise estimate: Equation (10); gamma (B,) in (0, 1]."""
    gamma = per_image(gamma, y_t)
    return times(gamma.rsqrt(), y_t - times((1 - gamma).sqrt(), epsilon_hat))


def predict_epsilon(y_t: Tensor, gamma: Tensor, y_0_hat: Tensor) -> Tensor:
    """The noise that turns y_0_hat into y_t: Equation (10) solved for epsilon; gamma (B,) in (0, 1)."""
    gamma = per_image(gamma, y_t)
    return times((1 - gamma).rsqrt(), y_t - times(gamma.sqrt(), y_0_hat))


def reverse_mean(y_t: Tensor, gamma_previous: Tensor, gamma: Tensor, epsilon_hat: Tensor) -> Tensor:
    """Mean of y_{t-1} given y_t and the noise estimate: Equation (11); gamma_{t-1} and gamma_t are (B,)."""
    now = per_image(gamma, y_t)
    alpha = now / per_image(gamma_previous, y_t)
    return times(alpha.rsqrt(), y_t - times((1 - alpha) / (1 - now).sqrt(), epsilon_hat))


def training_target(target: Target, y_0: Tensor, gamma: Tensor, epsilon: Tensor) -> Tensor:
    """The training target at noise level gamma (B,): epsilon, y_0 or v.

    v = sqrt(gamma) epsilon - sqrt(1 - gamma) y_0 is from Salimans and Ho (2022); section 2.2 of SR3 names y_0 as the
    alternative to epsilon.
    """
    if target == "epsilon":
        return epsilon
    if target == "y_0":
        return y_0
    gamma = per_image(gamma, y_0)
    return times(gamma.sqrt(), epsilon) - times((1 - gamma).sqrt(), y_0)


def y_0_from_output(target: Target, output: Tensor, y_t: Tensor, gamma: Tensor) -> Tensor:
    """Convert a network's output for any training target to y_0_hat; gamma (B,) in (0, 1]."""
    if target == "epsilon":
        return predict_y_0(y_t, gamma, output)
    if target == "y_0":
        return output
    gamma = per_image(gamma, y_t)
    return times(gamma.sqrt(), y_t) - times((1 - gamma).sqrt(), output)


def epsilon_from_output(target: Target, output: Tensor, y_t: Tensor, gamma: Tensor) -> Tensor:
    """Convert a network's output for any training target to the epsilon estimate; gamma (B,) in (0, 1)."""
    if target == "epsilon":
        return output
    if target == "y_0":
        return predict_epsilon(y_t, gamma, output)
    gamma = per_image(gamma, y_t)
    return times((1 - gamma).sqrt(), y_t) + times(gamma.sqrt(), output)
