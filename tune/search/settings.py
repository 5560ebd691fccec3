"""Configuration of the schedule search: frozen dataclasses, checked when made. No torch, no ray."""

from dataclasses import dataclass, field, fields
from typing import Literal

from pipelines.settings.stages import Split
from sr3core.config import ADDED, PLACEMENT
from sr3core.hyperparameters import SamplerAlgorithm, Start, require

Algorithm = Literal["tpe", "cmaes", "random", "grid"]
Objective = Literal["fid", "kid", "weighted", "crps", "energy"]
FeatureChoice = Literal["auto", "inception", "seeded"]
WarmStart = Literal["elbo", "gits", "learned"]

NUM_DEFAULTS = 6
"""Number of schedules that tune/search/proposals/defaults.py makes per budget."""
MOST_REFINED = 12
"""Largest number of steps for which each step can be searched individually."""
PAPER_BUDGET = 100
"""Section 2.4: "we set the maximum inference budget to 100 diffusion steps"."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ObjectiveWeights:
    """Weights of the weighted objective: the sum of weight times value; lower is better."""

    fid: float = 1.0
    """Weight of the Fréchet distance."""
    kid: float = 0.0
    """Weight of the kernel distance."""
    psnr: float = 0.0
    """Weight of PSNR in dB, which is subtracted, since higher is better."""
    ssim: float = 0.0
    """Weight of SSIM, which is subtracted."""
    consistency: float = 0.0
    """Weight of the consistency error, in units of 1e-5."""
    seconds: float = 0.0
    """Weight of the sampling time per image, in seconds."""

    def __post_init__(self) -> None:
        values = (self.fid, self.kid, self.psnr, self.ssim, self.consistency, self.seconds)
        require(all(value >= 0 for value in values), f"weights: {values} must not be negative")
        require(any(value > 0 for value in values), "weights: at least one must be positive")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialResources:
    """What each trial, and each other task of a search, may use."""

    cpus: float
    gpus: float
    max_retries: int


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchMethod:
    """How schedules are searched, whichever stage they are for and whatever they may cost."""

    allow_more_steps: bool = False
    """Allow num_steps above the paper's budget of 100."""
    front: tuple[int, ...] = ()
    """Several budgets, in network evaluations, for the front of distance against cost: the search chooses among them
    too. Each at most num_steps. Empty: every schedule has the budget num_steps."""
    num_trials: int = 32
    """Number of schedules to try, including the defaults and the warm starts."""
    num_refinements: int = 0
    """Number of schedules to try afterwards around the best one, with every step free: by CMA-ES, or at random where
    algorithm is random. Only for at most 12 steps."""
    warm_starts: tuple[WarmStart, ...] = ("elbo", "gits")
    """Schedules that are computed without measuring a distance, and tried early. elbo: the dynamic program of Watson et
    al., 2021. gits: that of Chen et al., 2024, on the shape of the sampling trajectory. learned: levels fitted to a
    long chain by gradients, after Tong et al., 2025; costs about as much as seven schedules of 256 images."""
    num_images: int = 256
    """Held-out images per schedule, or as many as there are."""
    num_references: int = field(default=1024, metadata=ADDED)
    """Other images, of the training split, that outputs are compared with where num_images is below 10,000: few images
    rank blur first by distances to their own originals."""
    num_rungs: int = 1
    """Rungs of successive halving: a schedule is first judged on num_images / rung_factor ** (num_rungs - 1) images,
    and continues only if it is among the best 1 / rung_factor at its rung. 1 judges every schedule on all images."""
    rung_factor: int = 4
    """Ratio between the numbers of images of neighbouring rungs."""
    split: Split = "validation"
    """Held-out split that the search uses."""
    confirm_split: Split | None = "test"
    """Second held-out split, on which the winner is confirmed with fresh noise; None skips the confirmation."""
    confirm_defaults: Literal["best", "all"] = "all"
    """Schedules that the winner is compared with there: all defaults, or only the trained schedule respaced and the
    best default."""
    confirm_seeds: int = field(default=3, metadata=ADDED)
    """How often the winner and the best default are sampled there, each time with other noise."""
    confirm_steps: tuple[int, ...] = field(default=(), metadata=ADDED)
    """Also judge there the trained schedule respaced to these numbers of steps, at any cost, up to all training steps:
    shows what the budget gives up."""
    algorithm: Algorithm = "tpe"
    """tpe and cmaes learn from earlier trials; random and grid are baselines."""
    objective: Objective = "fid"
    """What to minimise. fid of fewer than 10,000 images is extrapolated to infinitely many, against other images than
    the inputs'; below 64 images KID decides, which few images do not bias. Without Inception weights, fid and kid are
    distances on other features, and are labelled so. Of fields: crps, which is taken for fid, is the fair CRPS of
    ensembles, and energy their energy score, both in standard deviations of the channels."""
    members: int = field(default=4, metadata=ADDED)
    """Members of the ensembles by which schedules of fields are judged."""
    weights: ObjectiveWeights = field(default_factory=ObjectiveWeights)
    """Weights for objective weighted."""
    features: FeatureChoice = "auto"
    """Feature network. inception fails without its weights; seeded is a stand-in that is never called FID; auto uses
    inception where its weights are found, else seeded."""
    samplers: tuple[SamplerAlgorithm, ...] = ("ancestral", "ddim", "dpmpp_2m", "heun")
    """Samplers to choose from, each with its own amount of randomness; dpmpp_2m has none."""
    starts: tuple[Start, ...] = field(default=("noise",), metadata=ADDED)
    """What chains may start from. noise: pure noise, as in the paper. input: the upsampled input with noise added, to a
    level that is searched too (Chung et al., 2022). The defaults start from noise."""
    name: str | None = field(default=None, metadata=PLACEMENT)
    """Folder below RUN/<stage>/search; by default named after the steps and a hash of what decides the result. Naming
    an existing folder resumes its search, also with more trials."""
    seed: int = 0
    """Seed for the search and for the noise, which is the same for every schedule."""
    batch_size: int = field(default=32, metadata=PLACEMENT)
    """Images per forward pass."""
    num_concurrent: int | None = field(default=None, metadata=PLACEMENT)
    """Trials that run at once; by default as many as fit on the cluster."""
    cpus_per_trial: float = field(default=1.0, metadata=PLACEMENT)
    """CPUs reserved per trial."""
    gpus_per_trial: float | None = field(default=None, metadata=PLACEMENT)
    """GPUs reserved per trial; 0.25 runs four trials on one GPU, which share its memory; 0 computes on CPUs. None takes
    one where the cluster has GPUs, and for stages that were trained on GPUs waits for an autoscaler to add one."""
    max_retries: int = field(default=1, metadata=PLACEMENT)
    """How often a trial whose process died is restarted before it is recorded as failed."""

    def __post_init__(self) -> None:
        defaults = NUM_DEFAULTS * max(len(self.front), 1)
        require(
            self.num_trials > defaults,
            f"num_trials: {self.num_trials} leaves none to search, since {defaults} schedules are always tried first:"
            f" use --num-trials {defaults + 1} or more",
        )
        require(self.num_refinements >= 0, f"num_refinements: {self.num_refinements} is negative")
        require(
            not self.front or self.algorithm in ("tpe", "random"),
            f"algorithm: {self.algorithm} minimises a single objective; a front needs tpe or random",
        )
        require(self.num_rungs >= 1, f"num_rungs: {self.num_rungs} is not positive")
        require(self.rung_factor >= 2, f"rung_factor: {self.rung_factor} must be at least 2")
        smallest = self.rungs[0]
        require(
            smallest >= 2 and self.num_images == smallest * self.rung_factor ** (self.num_rungs - 1),
            f"num_images: {self.num_images} / {self.rung_factor}^{self.num_rungs - 1} must be whole and at least 2, so"
            " that rungs hold fixed numbers of images",
        )
        require(
            self.confirm_split != self.split,
            f"confirm_split: {self.split} is the split that the search uses; choose another",
        )
        require(
            len(set(self.samplers)) == len(self.samplers) >= 1,
            f"samplers: {self.samplers} must be different, and at least one",
        )
        require(
            len(set(self.starts)) == len(self.starts) >= 1, f"starts: {self.starts} must be different, and at least one"
        )
        require(self.num_references >= 16, f"num_references: {self.num_references} is less than 16")
        require(self.confirm_seeds >= 1, f"confirm_seeds: {self.confirm_seeds} is not positive")
        require(self.members >= 2, f"members: {self.members} is fewer than 2")
        require(self.batch_size >= 1, f"batch_size: {self.batch_size} is not positive")
        require(self.cpus_per_trial > 0, f"cpus_per_trial: {self.cpus_per_trial} is not positive")
        require((self.gpus_per_trial or 0) >= 0, f"gpus_per_trial: {self.gpus_per_trial} is negative")
        require(self.max_retries >= 0, f"max_retries: {self.max_retries} is negative")
        require(
            self.num_concurrent is None or self.num_concurrent >= 1,
            f"num_concurrent: {self.num_concurrent} is not positive",
        )

    @property
    def trial_resources(self) -> TrialResources:
        """What each trial may use."""
        return TrialResources(cpus=self.cpus_per_trial, gpus=self.gpus_per_trial or 0.0, max_retries=self.max_retries)

    @property
    def rungs(self) -> tuple[int, ...]:
        """Numbers of images at which trials are compared, rising; num_images is the last."""
        return tuple(self.num_images // self.rung_factor**k for k in reversed(range(self.num_rungs)))


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchConfig(SearchMethod):
    """Search for one stage's inference schedule."""

    stage: str
    """Stage of the run whose schedule is searched, such as 16-128."""
    num_steps: int = 25
    """Network evaluations per image; with front, the maximum. heun, which evaluates the network twice per step, gets
    half as many steps."""

    def __post_init__(self) -> None:
        SearchMethod.__post_init__(self)  # super() finds no class that has slots
        require(self.num_steps >= 1, f"num_steps: {self.num_steps} is not positive")
        require(
            self.num_steps <= PAPER_BUDGET or self.allow_more_steps,
            f"num_steps: {self.num_steps} exceeds the paper's budget of {PAPER_BUDGET};"
            " add --allow-more-steps to allow it",
        )
        require(
            self.num_refinements == 0 or (self.num_steps <= MOST_REFINED and not self.front),
            f"num_refinements: steps are not refined with a front or beyond {MOST_REFINED} steps; set it to 0",
        )
        require(
            all(1 <= steps <= self.num_steps for steps in self.front) and len(set(self.front)) == len(self.front) != 1,
            f"front: {self.front} must be different numbers in 1..num_steps ({self.num_steps}), at least two",
        )

    @property
    def steps(self) -> tuple[int, ...]:
        """The budgets: the numbers of network evaluations that schedules may cost, rising."""
        return tuple(sorted(self.front)) or (self.num_steps,)

    def budget_of(self, num_evaluations: int) -> int:
        """The smallest budget that allows this many evaluations."""
        return min(budget for budget in self.steps if budget >= num_evaluations)


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchesConfig(SearchMethod):
    """Searches for one or several stages and budgets: `sr3 search`."""

    stage: tuple[str, ...] = ()
    """Stages of the runs whose schedules are searched, such as 16-128; by default every SR3 stage."""
    num_steps: tuple[int, ...] = (25,)
    """Network evaluations per image; several are searched one after the other, each for a schedule of its own. With
    front, the maximum. heun, which evaluates the network twice per step, gets half as many steps."""

    def __post_init__(self) -> None:
        SearchMethod.__post_init__(self)
        for name in ("stage", "num_steps"):
            values = getattr(self, name)
            require(len(set(values)) == len(values), f"{name}: {values} must be different")
        require(len(self.num_steps) >= 1, "num_steps: at least one is needed")
        require(
            self.name is None or len(self.num_steps) == 1,
            f"name: {self.name} cannot be the folder of searches for several numbers of steps; leave it out",
        )
        self.searches("")

    def searches(self, stage: str) -> tuple[SearchConfig, ...]:
        """The searches of one stage, one for each budget.

        Raises:
            ConfigError: a budget does not fit the method.
        """
        method = {field.name: getattr(self, field.name) for field in fields(SearchMethod)}
        return tuple(SearchConfig(stage=stage, num_steps=steps, **method) for steps in self.num_steps)
