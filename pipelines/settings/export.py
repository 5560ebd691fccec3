"""Settings of `sr3 export`: what a model folder holds, and what its card says."""

from dataclasses import dataclass
from typing import Literal

from pipelines.settings.locations import Location


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportConfig:
    """How a trained run becomes a model folder: `sr3 export`."""

    weights: Literal["float16", "float32"] = "float16"
    """How the weights are stored. float16 halves the size; the networks compute in float32 either way."""
    title: str = ""
    """Title of the model card; by default the preset's name."""
    license: str = "other"
    """Licence of the weights, as an identifier of SPDX or of the model hub, such as apache-2.0 or cc-by-4.0."""
    credits: str = ""
    """What the model was trained on, and whose images those are, in sentences for the card."""
    limits: str = ""
    """What the model is good and bad at, in sentences for the card."""
    evaluations: tuple[Location, ...] = ()
    """Files that `sr3 evaluate --outputs` wrote, for the card; RUN/evaluation.json comes first if there is one."""
