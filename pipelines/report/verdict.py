"""What the numbers say, in sentences: the verdict on an evaluation, a search or a training, from intervals alone.

The report prints these sentences at its top, and `sr3 evaluate` and `sr3 search` at their end.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipelines.evaluation.ablation import SIGNS
from pipelines.runs.run_folder import Run, read_metrics

MIN_IMAGES_FOR_DISTANCES = 64
"""With fewer images even KID often ranks methods wrongly; docs/explanation/fid.md has the measurements."""
ROUGH_NUM_IMAGES = 32
"""With fewer images the bootstrap's intervals are too narrow, which the verdict then says."""
NOTICEABLE = 0.01
"""Relative change of a held-out loss that counts."""
LAST_PART = 0.2
"""Share of the training at its end in which the loss is still falling if it noticeably reaches a new minimum."""
NAMES = {"psnr": "PSNR", "ssim": "SSIM", "consistency": "consistency"}
NUMBERS = {2: "both", 3: "all three", 4: "all four"}

Losses = Mapping[str, Sequence[tuple[int, float]]]
"""Stage -> its held-out losses: (step, loss), by rising step."""


def evaluation_verdict(evaluation: Mapping[str, Any], losses: Losses) -> list[str]:
    """How SR3 (or the last of some folders) does beside the other methods, and whether its training was over.

    A method is ahead or behind on a measure if the interval of the paired difference excludes 0. Between sets of images
    it is KID that counts: with fewer than tens of thousands of images, FID against paired references misleads.

    Args:
        evaluation: content of evaluation.json, or of the file that `sr3 evaluate --outputs` wrote.
        losses: of the stages that made the images; empty if they are unknown.
    """
    differences = {name: gaps for name, gaps in evaluation.get("differences", {}).items() if name != "nearest"}
    num_images, measures = evaluation["num_images"], _measures(evaluation)
    found = [sentence for name, gaps in differences.items() if (sentence := _comparison(_called(name), gaps, measures))]
    if found and num_images < MIN_IMAGES_FOR_DISTANCES:
        rough = "; even these intervals are rough" if num_images < ROUGH_NUM_IMAGES else ""
        found.append(f"{num_images} images are too few for distances between sets{rough}.")
    return found + training_verdict(losses)


def sets_verdict(evaluation: Mapping[str, Any]) -> list[str]:
    """How far images from noise are from originals: content of table-4.json, in a sentence."""
    found = []
    for method in evaluation["methods"]:
        value, label = method["distance"], evaluation["distance"]["label"]
        interval = f" [{value['low']:.4g}, {value['high']:.4g}]" if "low" in value else ""
        found.append(f"{label}: {value['mean']:.4g}{interval}.")
    if evaluation["num_images"] < MIN_IMAGES_FOR_DISTANCES:
        found.append(f"{evaluation['num_images']} images are too few for this number to mean much: look at them.")
    return found


def search_verdict(search: Mapping[str, Any]) -> str:
    """Whether the schedule that a search found is better than the best default, and which is published, in a sentence.

    The images of the confirmation decide, if there are any: a search overfits its own.

    Args:
        search: content of search.json.
    """
    best, published = search["best"], _published(search)
    sure = search.get("confirmation")
    if sure is None:
        where = f"on the {search['num_images']} {search['split']} images searched"
        return f"{best} is best {where}. No others confirm it: it may be chance. It is published all the same."
    gain = next((gain for gain in sure["gains"] if gain["name"] == best), None)
    where = f"on {sure['num_images']} other images ({sure['split']})"
    if gain is None:
        return f"The search found nothing better than its defaults. {published} is published, the best of them {where}."
    by = " by KID" if is_judged_by_kid(search) else ""
    numbers = f"{gain['value']:.4g} [{gain['low']:.4g}, {gain['high']:.4g}]{by}"
    if published == best:
        return f"{best} is better than the best default {gain['default']} {where}: by {numbers}. It is published."
    return f"{_refutation(gain, where, numbers)}. {published} is published instead."


def is_judged_by_kid(search: Mapping[str, Any]) -> bool:
    """Whether KID decided a search: it was its objective, or its images were too few for the other distance."""
    pairs = [(trial["objective"], trial.get("kid")) for trial in search["trials"] if trial["status"] == "done"]
    return bool(pairs) and all(kid is not None and objective == kid for objective, kid in pairs)


def _published(search: Mapping[str, Any]) -> str:
    """What is published for the best trial."""
    names = search["front"] or [search["best"]]
    return dict(zip(names, search["published"], strict=True))[search["best"]]


def _refutation(gain: Mapping[str, Any], where: str, numbers: str) -> str:
    """Why a winner is not published."""
    if gain["low"] > 0:
        return (
            f"{gain['name']} is better than the best default {gain['default']} {where} by FID, by {numbers}, but worse"
            " by KID"
        )
    return f"{gain['name']} is not surely better than the best default {gain['default']} {where}: its gain is {numbers}"


def training_verdict(losses: Losses) -> list[str]:
    """Whether held-out losses were still falling or already rising when training ended; nothing if neither."""
    found = []
    if falling := [stage for stage, points in losses.items() if _still_falling(points)]:
        found.append(f"Held-out loss was still falling{_of(falling, losses)}: longer training is likely to help.")
    for stage, points in losses.items():
        lowest = _risen_since(points)
        if lowest is not None:
            found.append(
                f"Held-out loss{_of([stage], losses)} was lowest at step {lowest:,} of {points[-1][0]:,} and has risen"
                " since: more images would help, longer training would not."
            )
    return found


def run_verdict(run: Run, evaluation: Mapping[str, Any]) -> list[str]:
    """`evaluation_verdict` of a run, with the losses of the stages that made SR3's images."""
    return evaluation_verdict(evaluation, held_out_losses(run))


def held_out_losses(run: Run) -> dict[str, list[tuple[int, float]]]:
    """The held-out losses of a run's stages, without regression, which takes the checkpoint of peak PSNR."""
    return {
        stage.name: [
            (line["step"], line["loss"])
            for line in read_metrics(stage.metrics)
            if line["kind"] == "validation" and math.isfinite(line["loss"])
        ]
        for stage in run.stages
        if stage.config.model.kind != "regression"
    }


def _measures(evaluation: Mapping[str, Any]) -> dict[str, str]:
    """The metrics that the verdict is about, with their names: three of single images and one of sets."""
    if evaluation["num_images"] < MIN_IMAGES_FOR_DISTANCES:
        return NAMES
    is_fid = evaluation["distance"]["is_fid"]
    has_kid = any("low" in gaps.get("kid", {}) for gaps in evaluation.get("differences", {}).values())
    if has_kid:
        return NAMES | {"kid": "KID" if is_fid else "kernel distance"}
    return NAMES | {"distance": "FID" if is_fid else "Fréchet distance"}


def _comparison(name: str, gaps: Mapping[str, Any], measures: Mapping[str, str]) -> str | None:
    """One sentence on the last method beside another; gaps are the other's values minus the last one's."""
    ours = _called(gaps["than"])
    known = {metric: words for metric, words in measures.items() if "low" in gaps.get(metric, {})}
    signs = {words: -_sign(gaps[metric]) * SIGNS.get(metric, -1) for metric, words in known.items()}
    ahead, behind, level = ([words for words, sign in signs.items() if sign == side] for side in (1, -1, 0))
    if not signs:
        return None
    if len(level) == len(signs):
        return f"{ours} and {name} cannot be told apart on {_join(level)}: each difference's interval contains 0."
    if len(signs) in NUMBERS and len(signs) in (len(ahead), len(behind)):
        order = "ahead of" if ahead else "behind"
        return f"{ours} is {order} {name} on {NUMBERS[len(signs)]} measures ({', '.join(signs)})."
    parts = [f"ahead of {name} on {_join(ahead)}"] if ahead else []
    parts += [f"behind {'it' if ahead else name} on {_join(behind)}"] if behind else []
    verb = "does" if len(level) == 1 else "do"
    rest = f"; {_join(level)} {verb} not tell them apart" if level else ""
    return f"{ours} is {' and '.join(parts)}{rest}."


def _sign(gap: Mapping[str, float]) -> int:
    """Of a difference with its interval: 0 if that contains 0."""
    return 1 if gap["low"] > 0 else -1 if gap["high"] < 0 else 0


def _called(method: str) -> str:
    return "SR3" if method == "sr3" else "the regression baseline" if method.endswith("-regression") else method


def _still_falling(points: Sequence[tuple[int, float]]) -> bool:
    before, after = (min(part, default=None) for part in _parts(points))
    return before is not None and after is not None and after < (1 - NOTICEABLE) * before


def _risen_since(points: Sequence[tuple[int, float]]) -> int | None:
    """The step of the lowest loss, if it lies before the last part and the last loss is noticeably higher."""
    before, after = (min(part, default=None) for part in _parts(points))
    if before is None or after is None or after < (1 + NOTICEABLE) * before:
        return None
    return next(step for step, loss in points if loss == before)


def _parts(points: Sequence[tuple[int, float]]) -> Iterator[list[float]]:
    """The losses before and in the last part of a training."""
    start = (1 - LAST_PART) * points[-1][0] if points else 0
    yield [loss for step, loss in points if step <= start]
    yield [loss for step, loss in points if step > start]


def _of(stages: Sequence[str], losses: Losses) -> str:
    """` of 16-32 and 32-64`; nothing if the run has a single stage."""
    return f" in {_join(stages)}" if len(losses) > 1 else ""


def _join(words: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))
