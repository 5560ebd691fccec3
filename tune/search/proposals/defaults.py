"""The schedules that one would use without a search; they are always among the trials."""

import numpy as np

from sr3core.diffusion.schedules import InferenceSchedule, default_schedule, inference_gammas, training_gammas
from sr3core.hyperparameters import NoiseScheduleConfig, SamplerConfig
from tune.search.proposals.space import make_schedule

EDM_SIGMAS = 0.002, 80.0
"""sqrt((1 - gamma) / gamma) of the last and the first step in Table 1 of Karras et al. (2022): below half a grey level,
and hardly any signal. Cosine training reaches sigmas of tens of thousands, where a step is wasted on pure noise."""


def defaults(training: NoiseScheduleConfig, num_evaluations: int) -> tuple[InferenceSchedule, ...]:
    """One schedule for each common choice; the trained schedule respaced is the first.

    - trained-respaced: every T/N-th level of the training schedule, Algorithm 2.
    - wavegrad-like: beta grows from 1e-6 by one ratio, as in the Fibonacci schedule of WaveGrad (Chen et al., 2020);
      here the ratio is the one that reaches the smallest trained level.
    - palette-like: beta grows linearly to 900 times its start, as Palette's (Saharia et al., 2021) 1e-4 to 0.09 over
      1000 steps, scaled to reach the smallest trained level.
    - ddim: the levels of trained-respaced, walked by DDIM without noise.
    - dpmpp-2m: levels even in log SNR between EDM's ends, or to the smallest trained, walked by DPM-Solver++(2M).
    - heun-karras: Karras et al.'s (2022) levels, rho = 7, between the same ends, walked by their sampler without noise.

    Args:
        training: the schedule that the network was trained with.
        num_evaluations: each one's budget; heun, with two per step, takes half as many steps, and one fewer if even.
    """
    respaced = default_schedule(training, num_evaluations)
    smallest = float(training_gammas(training)[-1])
    growing = np.linspace(1, 900, num_evaluations)
    palette = np.exp(np.log(smallest) * np.concatenate([[0.0], np.cumsum(growing) / growing.sum()]))
    palette[-1] = smallest
    ancestral, ddim = SamplerConfig(), SamplerConfig(algorithm="ddim")
    dpmpp_2m, heun = SamplerConfig(algorithm="dpmpp_2m"), SamplerConfig(algorithm="heun")
    edm_first, edm_last = (1 / (1 + sigma**2) for sigma in EDM_SIGMAS)
    ends = edm_first, max(edm_last, smallest)
    karras = inference_gammas("karras", heun.num_steps_within(num_evaluations), *ends)
    named = [
        ("trained-respaced", np.array(respaced.gammas), ancestral),
        ("wavegrad-like", inference_gammas("geometric", num_evaluations, 1 - 1e-6, smallest), ancestral),
        ("palette-like", palette, ancestral),
        ("ddim", np.array(respaced.gammas), ddim),
        ("dpmpp-2m", inference_gammas("sigmoid", num_evaluations, *ends), dpmpp_2m),
        ("heun-karras", karras, heun),
    ]
    return tuple(make_schedule(gammas, sampler, name, smallest) for name, gammas, sampler in named)
