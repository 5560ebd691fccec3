"""By what a number of images can judge schedules.

Few images rank blur first by FID against the originals of the inputs: an output that copies the mean of what its
original may have been is near to it, and the distance of few images is mostly the distance of their noise. Against
other images, extrapolated to infinitely many, FID ranks right from 64 images on, and KID, which few images do not bias,
from 16. tests/benchmarks/rank_by_distance.py measures this; docs/explanation/fid.md has its table.
"""

from typing import Literal

from sr3core.features.extractors import FeatureNetwork, distance_label
from tune.search.settings import Objective

Estimate = Literal["fid", "fid-infinity", "kid", "weighted", "crps", "energy"]
"""fid: as the paper measures it, against the originals of the inputs. fid-infinity: extrapolated to infinitely many
images, against other images; kid and weighted: against these too, where images are too few for fid. crps and energy:
means of the scores of ensembles of fields."""
SCORES: dict[str, str] = {"crps": "CRPS", "energy": "energy score"}
"""Estimates that are means over samples of fields, in words."""
FIELD_COLUMNS = ("crps", "energy")
"""Scores in the columns of the features that are measured of fields."""

ENOUGH_FOR_FID = 10_000
"""The authors of FID advise at least so many; the paper takes 50,000."""
ENOUGH_FOR_EXTRAPOLATION = 64
ENOUGH_FOR_KID = 16


def estimate_of(objective: Objective, num_images: int) -> Estimate:
    """The estimate that decides, of an objective by so many images."""
    if objective != "fid":
        return objective
    if num_images >= ENOUGH_FOR_FID:
        return "fid"
    return "fid-infinity" if num_images >= ENOUGH_FOR_EXTRAPOLATION else "kid"


def estimates_of(objective: Objective, rungs: tuple[int, ...]) -> tuple[Estimate, ...]:
    """The estimate at each rung: of FID, all but the last judge by KID, which needs the fewest images."""
    last = estimate_of(objective, rungs[-1])
    early: Estimate = "kid" if objective == "fid" else last
    return (*(early for _ in rungs[:-1]), last)


def is_paired(num_images: int) -> bool:
    """Whether so many images are compared with the originals of their inputs, as in the paper."""
    return num_images >= ENOUGH_FOR_FID


def what_decides(objective: Objective, num_images: int) -> str | None:
    """What is done where images are too few for the objective, in words; None if they are enough."""
    if num_images < ENOUGH_FOR_KID:
        return f"{num_images} images rank no schedules, by any distance: KID needs {ENOUGH_FOR_KID}, FID more"
    if objective != "fid" or num_images >= ENOUGH_FOR_FID:
        return None
    needs = f"objective fid needs {ENOUGH_FOR_FID:,} images, and there are {num_images:,}"
    if num_images < ENOUGH_FOR_EXTRAPOLATION:
        return f"{needs}: judging by KID against other images; {ENOUGH_FOR_EXTRAPOLATION} are enough to extrapolate FID"
    return f"{needs}: judging by FID extrapolated to infinitely many, against other images, with KID as second opinion"


def score_label(objective: Objective, members: int) -> str:
    """Name the score of ensembles of fields."""
    return f"{SCORES[objective]} of {members} members, in standard deviations of the channels"


def label_of(network: FeatureNetwork, num_images: int, num_references: int) -> str:
    """Name the distance by its network, its numbers of images, and how it is estimated."""
    label = distance_label(network, num_images)
    if is_paired(num_images):
        return label
    return f"{label}, extrapolated to infinitely many, against {num_references} other images"
