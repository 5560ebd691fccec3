"""The paper's hyper-parameters, typed, validated and defined once. No torch import: the command line loads this."""

import math
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal, get_args

from sr3core.config import ADDED, did_you_mean
from sr3core.errors import ConfigError
from sr3core.sizes import Size, describe, fits_in, is_plain, ratio, sides_of

Target = Literal["epsilon", "y_0", "v"]
ResidualOf = Literal["none", "upsampled", "regression"]
BetaFamily = Literal["linear", "cosine"]
GammaUniformIn = Literal["gamma", "sqrt_gamma", "steps"]
SamplerAlgorithm = Literal["ancestral", "ddim", "dpmpp_2m", "heun"]
Clipping = Literal["none", "static", "dynamic"]
Start = Literal["noise", "input"]
Precision = Literal["float32", "tf32", "bfloat16"]
Architecture = Literal["sr3", "refinement", "guided_diffusion"]
Upsampling = Literal["bicubic", "bilinear"]


def require(condition: bool, message: str) -> None:
    """Raise ConfigError(message) unless condition holds."""
    if not condition:
        raise ConfigError(message)


@dataclass(frozen=True, kw_only=True, slots=True)
class UNetConfig:
    """The U-Net of Figure A.1; Table A.1 gives its columns (sr3core/networks/architectures.py)."""

    image_size: Size
    """Side of the square images that the network is trained on, in pixels, or the height and width of rectangles: of
    whole images, or, where it is less than high_size, of random crops of them. It decides which resolutions get
    attention."""
    base_channels: int = 128
    """Width of the first layer: Table A.1's "Channel Dim"."""
    channel_multipliers: tuple[int, ...] = (1, 2, 4, 8, 8)
    """Width of each resolution in multiples of base_channels: Table A.1's "Depth Multipliers"."""
    num_res_blocks: int = 3
    """Residual blocks per resolution in the encoder; the decoder has one more."""
    attention_sizes: tuple[int, ...] = (16,)
    """Feature-map sides that get self-attention, of rectangles the shorter ones; the middle always has it."""
    dropout: float = 0.0
    """Dropout rate in the residual blocks, [0, 1): 0.2 for 16 -> 128, else none (section 4)."""
    conditional: bool = True
    """Whether the upsampled low-resolution image is concatenated to y_t; a base model has none."""
    num_classes: int | None = field(default=None, metadata=ADDED)
    """Number of classes of a class-conditional base model; None for no classes. The class embedding is added to the
    noise level's."""
    num_heads: int = field(default=1, metadata=ADDED)
    """Number of self-attention heads; it must divide the number of channels."""
    head_channels: int | None = field(default=None, metadata=ADDED)
    """Channels of each self-attention head, instead of num_heads: 64 is usual. A GPU's fused attention takes at most
    256, and Table A.1's networks, with one head, have 256 to 1024. None for num_heads."""
    learned_variance: bool = field(default=False, metadata=ADDED)
    """Also predict the variance of the reverse step, which doubles the output channels (Improved DDPM)."""
    input_noise: float = field(default=0.0, metadata=ADDED)
    """Largest standard deviation of the noise that training adds to the low-resolution image, which the network is told
    (noise-conditioning augmentation: Ho et al., 2022; SR3+); 0 for none. 0.5 is SR3+'s. Deviation: the paper blurs."""
    image_channels: int = field(default=3, metadata=ADDED)
    """Channels of what the network makes, and of the upsampled input: 3 for RGB; for fields, one a variable."""
    extra_channels: int = field(default=0, metadata=ADDED)
    """Further channels of its condition: low-resolution variables that it does not make, and static maps."""
    branch_init: float = field(default=0.0, metadata=ADDED)
    """Scale of the first weights of the last layer in each residual branch. With 0 a branch is silent at first, and
    every block halves the variance of what passes it: coarse levels start with next to nothing. 1 keeps the
    variance."""
    architecture: Architecture = field(default="sr3", metadata=ADDED)
    """Whose blocks: sr3 is Figure A.1's. The others are those of networks that `sr3 import` takes over, which cannot be
    trained here."""
    norm_groups: int = field(default=32, metadata=ADDED)
    """Groups of the group normalisations of an imported network; sr3 derives them from the channels."""

    def __post_init__(self) -> None:
        self._check_architecture()
        factor = self.size_multiple
        require(len(self.channel_multipliers) >= 1, "channel_multipliers: at least one is needed")
        require(all(m >= 1 for m in self.channel_multipliers), "channel_multipliers: each must be at least 1")
        require(self.base_channels >= 4 and self.base_channels % 4 == 0, "base_channels: a multiple of 4 is needed")
        require(self.num_res_blocks >= 1, "num_res_blocks: at least 1 is needed")
        require(0 <= self.dropout < 1, f"dropout: {self.dropout} is not in [0, 1)")
        require(self.num_classes is None or self.num_classes >= 1, f"num_classes: {self.num_classes} is not positive")
        require(0 <= self.branch_init <= 1, f"branch_init: {self.branch_init} is not in [0, 1]")
        require(0 <= self.input_noise < 1, f"input_noise: {self.input_noise} is not in [0, 1)")
        require(self.image_channels >= 1, f"image_channels: {self.image_channels} is not positive")
        require(self.extra_channels >= 0, f"extra_channels: {self.extra_channels} is negative")
        require(not self.extra_channels or self.conditional, "extra_channels: a base model has no condition")
        require(not self.input_noise or self.conditional, "input_noise: a base model has no input to add noise to")
        require(
            self.num_heads >= 1 and all(self.base_channels * m % self.num_heads == 0 for m in self.channel_multipliers),
            f"num_heads: {self.num_heads} does not divide base_channels times each of channel_multipliers",
        )
        heads = self.head_channels
        require(
            heads is None or (heads >= 1 and all(self.base_channels * m % heads == 0 for m in self._attending)),
            f"head_channels: {heads} does not divide the channels that attend,"
            f" {[self.base_channels * m for m in self._attending]}",
        )
        require(heads is None or self.num_heads == 1, f"head_channels: {heads} excludes num_heads {self.num_heads}")
        require_plain("image_size", self.image_size)
        require(
            all(side % factor == 0 and side >= factor for side in sides_of(self.image_size)),
            f"image_size: {describe(self.image_size)} cannot be halved {len(self.channel_multipliers) - 1} times;"
            f" take a multiple of {factor} or fewer channel_multipliers",
        )

    def _check_architecture(self) -> None:
        _require_one_of("architecture", self.architecture, get_args(Architecture))
        if self.architecture == "sr3":
            require(self.norm_groups == 32, f"norm_groups: {self.norm_groups}, but sr3 derives its groups")
            return
        widths = [self.base_channels * m for m in self.channel_multipliers]
        require(
            self.norm_groups >= 1 and all(width % self.norm_groups == 0 for width in widths),
            f"norm_groups: {self.norm_groups} does not divide base_channels times each of channel_multipliers",
        )
        plain = self.conditional and self.num_classes is None and not self.input_noise and not self.extra_channels
        require(
            plain and self.image_channels == 3,
            f"architecture: {self.architecture} enlarges RGB images, without classes, input_noise or extra_channels",
        )

    @property
    def is_imported(self) -> bool:
        """Whether the network is another program's."""
        return self.architecture != "sr3"

    @property
    def size_multiple(self) -> int:
        """The sides of images are multiples of this: they are halved once a level."""
        return 2 ** (len(self.channel_multipliers) - 1)

    @property
    def level_sizes(self) -> tuple[tuple[int, int], ...]:
        """(height, width) of the feature maps of each level, at the size of training."""
        height, width = sides_of(self.image_size)
        return tuple((height // 2**level, width // 2**level) for level in range(len(self.channel_multipliers)))

    def attends(self, size: tuple[int, int]) -> bool:
        """Whether feature maps of this (height, width) get self-attention."""
        return min(size) in self.attention_sizes

    @property
    def _attending(self) -> list[int]:
        """Multipliers of the resolutions with self-attention; the middle has the last one's."""
        pairs = zip(self.level_sizes, self.channel_multipliers, strict=True)
        return [*(m for size, m in pairs if self.attends(size)), self.channel_multipliers[-1]]

    def heads_for(self, channels: int) -> int:
        """Number of self-attention heads over so many channels."""
        return self.num_heads if self.head_channels is None else channels // self.head_channels


@dataclass(frozen=True, kw_only=True, slots=True)
class NoiseScheduleConfig:
    """The training noise schedule alpha_1..alpha_T of section 2.4."""

    family: BetaFamily = "linear"
    """linear: 1 - alpha_t runs evenly from beta_first to beta_last. cosine: Nichol and Dhariwal, 2021."""
    num_steps: int = 2000
    """T: "We set T = 2000 in all our experiments"."""
    beta_first: float = 1e-6
    """1 - alpha_1. Deviation: the paper gives no end points; these are common in its re-implementations."""
    beta_last: float = 1e-2
    """1 - alpha_T."""

    def __post_init__(self) -> None:
        require(self.num_steps >= 1, "num_steps: at least 1 is needed")
        require(
            0 < self.beta_first <= self.beta_last < 1,
            f"beta_first, beta_last: 0 < {self.beta_first} <= {self.beta_last} < 1 does not hold",
        )

    @property
    def last_gamma(self) -> float:
        """gamma_T: how much of the image is left in y_T; near 0 for the cosine family."""
        if self.family == "cosine":
            return 0.0
        slope = (self.beta_last - self.beta_first) / max(self.num_steps - 1, 1)
        return math.exp(sum(math.log1p(-self.beta_first - slope * t) for t in range(self.num_steps)))


@dataclass(frozen=True, kw_only=True, slots=True)
class ObjectiveConfig:
    """The training objective, Equation (6): what the network predicts, and the loss."""

    norm: Literal[1, 2] = 1
    """p of the L_p norm in Equation (6); 1 is slightly better in Table 5."""
    target: Target = "epsilon"
    """epsilon is the paper's. y_0 and v are alternatives: with epsilon, an error at the noisiest step is amplified
    sqrt((1 - gamma) / gamma) times in y_0_hat, which is visible as a colour shift."""
    gamma_uniform_in: GammaUniformIn = "gamma"
    """Within a step, gamma (the paper's formula) or sqrt_gamma (WaveGrad's code) is uniform. With steps, it is always
    the step's own gamma_t (DDPM's choice), which the variational bound needs."""
    bound_weight: float = field(default=0.0, metadata=ADDED)
    """lambda of L_simple + lambda L_vlb, which trains a learned variance: 0.001 in Improved DDPM, 0 without one."""
    class_dropout: float = field(default=0.0, metadata=ADDED)
    """Fraction of samples whose class is hidden. Classifier-free guidance needs it (Ho and Salimans, 2022); 0.1 is
    usual."""
    residual: ResidualOf = field(default="none", metadata=ADDED)
    """What the chain draws. none: the image, as in the paper. upsampled: what bicubic upsampling leaves of it.
    regression: what the run's regression baseline of the same sizes leaves, which then takes the place of bicubic
    upsampling throughout, and is trained first."""
    residual_scale: tuple[float, ...] = field(default=(), metadata=ADDED)
    """The unit of each channel of a residual: the standard deviation, on the scale of [-1, 1], of what upsampling or a
    regression leaves of the training images. Empty: measured when the run is created, or when its regression is
    trained, and written into its configuration."""
    channel_weights: tuple[float, ...] = field(default=(), metadata=ADDED)
    """Weight of each channel in the loss, in their order, at least 0; they are divided by their mean. Empty: all count
    alike."""

    def __post_init__(self) -> None:
        require(
            all(0 < scale < math.inf for scale in self.residual_scale),
            f"residual_scale: {self.residual_scale} are not all positive and finite",
        )
        require(
            all(0 <= weight < math.inf for weight in self.channel_weights)
            and (not self.channel_weights or sum(self.channel_weights) > 0),
            f"channel_weights: {self.channel_weights} are not finite and at least 0, one of them more",
        )
        useless = self.residual == "none" and self.residual_scale
        require(not useless, f"residual_scale: {self.residual_scale} has no effect without a residual")
        bounded = self.residual != "none" and self.bound_weight
        require(
            not bounded, f"residual: {self.residual!r} excludes bound_weight {self.bound_weight}, a bound of images"
        )
        require(self.bound_weight >= 0, f"bound_weight: {self.bound_weight} is negative")
        require(0 <= self.class_dropout <= 1, f"class_dropout: {self.class_dropout} is not in [0, 1]")
        require(
            self.bound_weight == 0 or self.gamma_uniform_in == "steps",
            f"gamma_uniform_in: {self.gamma_uniform_in!r} draws levels between the steps, for which the bound of"
            ' bound_weight is not defined; take "steps"',
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimizerConfig:
    """Adam with linear warm-up and then a fixed rate (section 4, Training Details), and the average of the weights."""

    learning_rate: float = 1e-4
    """Learning rate after the warm-up: 1e-4 for SR3, 1e-5 for regression."""
    warmup_steps: int = 10_000
    """Steps over which the rate rises linearly from 0."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Adam's decay rates of the first and second moment."""
    epsilon: float = field(default=1e-8, metadata=ADDED)
    """Adam's epsilon, which is added to the root of the second moment: weights whose gradients are smaller move slower
    than the learning rate says. The coarse levels of deep networks have such gradients; 1e-12 is below them."""
    gradient_clip: float | None = None
    """Largest global gradient norm; None for no clipping, which seems to be the paper's choice."""
    ema_decay: float = 0.9999
    """Decay per step of the exponential moving average of the weights, which sampling uses; 0 for no average. After n
    steps it is at most (1 + n) / (10 + n), so that the first weights are forgotten early."""
    bad_steps: Literal["stop", "skip"] = field(default="stop", metadata=ADDED)
    """What the run does after a step whose gradient is not finite or is a spike. Such an update is never applied."""
    spike_factor: float | None = field(default=None, metadata=ADDED)
    """A gradient norm this many times the geometric mean of recent ones counts as a spike; None for no check."""
    max_bad_steps: int = field(default=100, metadata=ADDED)
    """With bad_steps=skip, training stops after this many bad steps in a row: it no longer learns anything."""

    def __post_init__(self) -> None:
        require(
            self.spike_factor is None or self.spike_factor > 1, f"spike_factor: {self.spike_factor} is not more than 1"
        )
        require(self.max_bad_steps >= 1, f"max_bad_steps: {self.max_bad_steps} is not positive")
        require(0 < self.epsilon < 1, f"epsilon: {self.epsilon} is not in (0, 1)")
        require(self.learning_rate > 0, f"learning_rate: {self.learning_rate} is not positive")
        require(self.warmup_steps >= 0, f"warmup_steps: {self.warmup_steps} is negative")
        require(0 <= self.ema_decay < 1, f"ema_decay: {self.ema_decay} is not in [0, 1)")
        require(all(0 <= beta < 1 for beta in self.betas), f"betas: {self.betas} are not in [0, 1)")
        require(
            self.gradient_clip is None or self.gradient_clip > 0, f"gradient_clip: {self.gradient_clip} is not positive"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class AugmentationConfig:
    """Data augmentation of the training pairs; not applied at inference."""

    flip: bool = True
    """Flip a random half of the pairs horizontally."""
    quarter_turns: bool = field(default=False, metadata=ADDED)
    """Turn each pair by 0, 90, 180 or 270 degrees at random: for crops of photos, not for faces or scenes."""
    blur_probability: float = 0.0
    """Probability that a low-resolution image is blurred each time it is used (section 4.3, "Gaussian Blurring
    noise")."""
    blur_sigma_max: float = 1.0
    """Largest standard deviation of that blur, in low-resolution pixels. Each use draws from U(0, blur_sigma_max)."""

    def __post_init__(self) -> None:
        require(0 <= self.blur_probability <= 1, f"blur_probability: {self.blur_probability} is not in [0, 1]")
        require(self.blur_sigma_max > 0, f"blur_sigma_max: {self.blur_sigma_max} is not positive")


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplerConfig:
    """How the reverse chain is sampled on an inference schedule."""

    algorithm: SamplerAlgorithm = "ancestral"
    """ancestral: Algorithm 2. ddim: Song et al., 2021, first order. dpmpp_2m: DPM-Solver++(2M), Lu et al., 2022, second
    order. heun: Karras et al., 2022 (EDM), second order, two evaluations a step."""
    variance: float = 1.0
    """ancestral: 1 is Algorithm 2's 1 - alpha_t, 0 is the posterior's (Equation 4); values in between interpolate
    geometrically. No effect on a network with a learned variance."""
    eta: float = 0.0
    """ddim: 0 is deterministic, 1 adds the posterior's variance."""
    churn: float = 0.0
    """heun: noise added before a step, as a fraction of EDM's maximum; EDM's S_churn is (sqrt(2) - 1) N churn."""
    guidance: float = 0.0
    """Weight w of classifier-free guidance, epsilon_hat = (1 + w) epsilon(class) - w epsilon(no class); 0 for none."""
    clip: Clipping = "static"
    """Treatment of y_0_hat at every step. static: clipped to [-1, 1]. dynamic: clipped to the clip_quantile of its
    absolute values, and divided by it (Saharia et al., 2022). Deviation: Algorithm 2 as printed does neither."""
    clip_quantile: float = 0.995
    """dynamic: the quantile, in (0, 1]."""
    project: int = 0
    """Iterations of the consistency projection at every evaluation: y_0_hat moves towards the images whose downsampled
    version is x. 1, 2 and 5 leave about a fifth, a twentieth and a four-hundredth of the squared error. Deviation: the
    paper has none."""
    start: Start = field(default="noise", metadata=ADDED)
    """What the chain starts from. noise: pure noise, Equation (8). input: the upsampled low-resolution image with noise
    of the schedule's last level (Chung et al., 2022). Deviation: the paper has only noise."""

    def __post_init__(self) -> None:
        _require_one_of("algorithm", self.algorithm, get_args(SamplerAlgorithm))
        _require_one_of("clip", self.clip, get_args(Clipping))
        _require_one_of("start", self.start, get_args(Start))
        require(0 <= self.variance <= 1, f"variance: {self.variance} is not in [0, 1]")
        require(0 <= self.eta <= 1, f"eta: {self.eta} is not in [0, 1]")
        require(0 <= self.churn <= 1, f"churn: {self.churn} is not in [0, 1]")
        require(0 <= self.guidance < math.inf, f"guidance: {self.guidance} is not in [0, inf); 0 turns it off")
        require(0 < self.clip_quantile <= 1, f"clip_quantile: {self.clip_quantile} is not in (0, 1]")
        require(self.project >= 0, f"project: {self.project} is negative; 0 turns it off")

    @property
    def is_random(self) -> bool:
        """Whether the sampler is stochastic, that is draws noise after y_T."""
        return {"ancestral": True, "ddim": self.eta > 0, "dpmpp_2m": False, "heun": self.churn > 0}[self.algorithm]

    def num_evaluations(self, num_steps: int) -> int:
        """Network evaluations of a chain of num_steps steps."""
        return 2 * num_steps - 1 if self.algorithm == "heun" else num_steps

    def num_steps_within(self, num_evaluations: int) -> int:
        """The largest number of steps that needs at most num_evaluations."""
        return (num_evaluations + 1) // 2 if self.algorithm == "heun" else num_evaluations


def _require_one_of(key: str, value: str, known: tuple[str, ...]) -> None:
    require(value in known, f"{key}: unknown {value!r}, {did_you_mean(str(value), known)}")


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """The model of one stage: its sizes, its network and its training."""

    kind: Literal["sr3", "regression", "base"] = "sr3"
    """sr3: the conditional diffusion model. regression: section 4's baseline, the same network in one step. base:
    the model of section 4.3 that generates images from noise, without a low-resolution input."""
    low_size: Size | None = None
    """Side of the low-resolution input, pixels, or its height and width; None for a base model."""
    high_size: Size
    """Side of the output, pixels, or its height and width."""
    unet: UNetConfig
    """The U-Net."""
    noise_schedule: NoiseScheduleConfig = field(default_factory=NoiseScheduleConfig)
    """The training noise schedule; not used by regression."""
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    """The training objective."""
    bounded: bool = field(default=True, metadata=ADDED)
    """Whether all values lie in [-1, 1], as those of images do; those of fields do not, so nothing is clipped."""

    def __post_init__(self) -> None:
        self._check_channels()
        if self.kind == "base":
            require(self.low_size is None, f"low_size: {self.low_size}, but a base model has no low-resolution input")
            require_plain("high_size", self.high_size)
            require(not self.unet.conditional, "unet.conditional: a base model needs False")
            require(self.objective.residual == "none", "objective.residual: a base model has nothing to upsample")
        else:
            _check_sizes(self.low_size, self.high_size)
            require(self.unet.conditional, "unet.conditional: a super-resolution stage needs True")
            require(self.unet.num_classes is None, "unet.num_classes: only a base model takes classes")
        require(
            not self.unet.is_imported or (self.kind == "sr3" and self.objective.residual == "none"),
            f"unet.architecture: {self.unet.architecture} needs kind sr3 and objective.residual none",
        )
        self._check_image_size()
        require(
            self.unet.learned_variance == (self.objective.bound_weight > 0),
            f"unet.learned_variance: {self.unet.learned_variance}, objective.bound_weight:"
            f" {self.objective.bound_weight}; a variance is learned by the bound, and the bound needs one",
        )
        require(
            not (self.unet.learned_variance and self.kind == "regression"),
            "unet.learned_variance: regression has no reverse step",
        )
        require(
            self.unet.input_noise == 0 or self.objective.residual == "none",
            f"unet.input_noise: with objective.residual {self.objective.residual!r}, the chain would start from the"
            " noise; take residual none",
        )
        require(
            self.objective.class_dropout == 0 or self.unet.num_classes is not None,
            f"objective.class_dropout: {self.objective.class_dropout}, but unet.num_classes is None",
        )

    def _check_channels(self) -> None:
        unet = self.unet
        require(
            self.bounded or not unet.learned_variance,
            "unet.learned_variance: its likelihood is that of 8-bit images, and this model makes fields",
        )
        require(
            unet.image_channels == 3 or self.kind != "base",
            f"unet.image_channels: {unet.image_channels}, but base models make RGB images",
        )

    def _check_image_size(self) -> None:
        size, high = self.unet.image_size, self.high_size
        less = f"unet.image_size: {describe(size)} is less than high_size {describe(high)}"
        require(fits_in(size, high), f"unet.image_size: {describe(size)} is more than high_size {describe(high)}")
        if size == high:
            return
        require(
            self.kind != "base",
            f"{less}, but a base model cannot be trained on crops: there is no input that would hold its crops"
            f" together; take {describe(high)}",
        )
        require(self.bounded, f"{less}, but fields are not cut into crops; take {describe(high)}")
        unit = self.scale.numerator
        require(
            all(side % unit == 0 for side in sides_of(size)),
            f"unet.image_size: crops of {describe(size)} pixels do not cover whole pixels of the input, {unit} of which"
            f" are {self.scale.denominator}; take a multiple of {unit}",
        )

    @property
    def crop_size(self) -> Size | None:
        """Size of the crops of the output that the network is trained on; None if it sees whole images."""
        return self.unet.image_size if self.unet.image_size != self.high_size else None

    @property
    def upsampling(self) -> Upsampling:
        """How the network's low-resolution input is enlarged."""
        return "bilinear" if self.unet.architecture == "guided_diffusion" else "bicubic"

    def check_channel_weights(self) -> None:
        """Check that the loss has a weight for each channel, or none; the numbers of channels may come from data.

        Raises:
            ConfigError: it has another number of them.
        """
        weights, channels = self.objective.channel_weights, self.unet.image_channels
        require(len(weights) in (0, channels), f"objective.channel_weights: {len(weights)} for {channels} channels")

    @property
    def scale(self) -> Fraction:
        """Ratio of the output's side to the input's: 4, or 128/25.

        Raises:
            ConfigError: this is a base model.
        """
        require(self.low_size is not None, f"kind: a base model of {describe(self.high_size)} pixels magnifies nothing")
        assert self.low_size is not None
        found = ratio(self.high_size, self.low_size)
        assert found is not None, "the sizes have been checked"
        return found

    def enlarged(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) of the output for an input of any size, in whole pixels: halves are rounded up."""
        rows, columns = (int(side * self.scale + Fraction(1, 2)) for side in (height, width))
        return rows, columns

    def filled(self, height: int, width: int) -> tuple[int, int]:
        """The smallest (height, width) that holds an input and whose enlargement has whole pixels without rounding."""
        rows, columns = (side + -side % self.scale.denominator for side in (height, width))
        return rows, columns


def require_plain(key: str, size: Size) -> None:
    """Raise ConfigError for a square that is written as a rectangle, or a side that is not positive."""
    require(min(sides_of(size)) >= 1, f"{key}: {describe(size)} is not positive")
    require(is_plain(size), f"{key}: {describe(size)} is a square; write {sides_of(size)[0]}")


def _check_sizes(low_size: Size | None, high_size: Size) -> None:
    require(low_size is not None, "low_size: missing; only a base model has none")
    assert low_size is not None
    require_plain("low_size", low_size)
    require_plain("high_size", high_size)
    low, high = describe(low_size), describe(high_size)
    require(sides_of(high_size) > sides_of(low_size), f"high_size: {high} is not larger than low_size {low}")
    require(
        ratio(high_size, low_size) is not None,
        f"high_size: the height of {high} is {Fraction(sides_of(high_size)[0], sides_of(low_size)[0])} times that of"
        f" low_size {low}, its width {Fraction(sides_of(high_size)[1], sides_of(low_size)[1])} times; take one ratio",
    )
