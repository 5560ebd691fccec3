"""Which subject sees which image on which side: balanced by image and by side, drawn from the study's seed."""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pipelines.study.config import StudyConfig
from sr3core.errors import ConfigError
from sr3core.randomness import derive_seed

Kind = Literal["practice", "trial", "check"]


@dataclass(frozen=True, slots=True)
class Trial:
    """A pair: the original and, on the other side, a model's output or (in practice and checks) a spoilt copy."""

    kind: Kind
    image: str
    original_first: bool
    """Whether the original is the first image: the left one, or on a phone the upper one."""


@dataclass(frozen=True, slots=True)
class Slot:
    """What one person is shown, in this order. A person takes a slot; if they leave, someone else takes it."""

    model: str
    viewing_seconds: float
    trials: tuple[Trial, ...]


def assign(config: StudyConfig, models: Sequence[str], images: Sequence[str], spares: Sequence[str]) -> list[Slot]:
    """Fill every slot of a study.

    Among the subjects of one model and viewing time, the numbers of times that images are shown differ by at most one.
    For each subject and for each image, the model is on the left as often as on the right, within one.

    Args:
        config: the study's configuration.
        models: names of the models.
        images: the images of the study.
        spares: additional images, for practice and attention checks.

    Raises:
        ConfigError: practice and checks need more images than those that a subject does not see otherwise.
    """
    needed = config.num_practice_trials + config.num_attention_checks
    free = len(images) - config.trials_per_subject + len(spares)
    if free < needed:
        fitting = config.most_trials(len(images) + len(spares))
        raise ConfigError(
            f"num_images: practice and attention checks need {needed} images that the subject is not shown otherwise,"
            f" but only {free} remain; show fewer, by `--trials-per-subject {fitting}`, or provide {needed - free} more"
        )
    slots = []
    for model in models:
        for seconds in config.viewing_seconds:
            group = f"{model}/{seconds:g}"
            shown = _deal_images(config, images, _random(config, "images", group))
            firsts = _balance_sides(shown, _random(config, "sides", group))
            for number, names in enumerate(shown):
                generator = _random(config, "order", group, number)
                pairs = [Trial("trial", name, firsts[number, name]) for name in names]
                slots.append(Slot(model, seconds, _with_checks(config, pairs, images, spares, generator)))
    _random(config, "slots").shuffle(slots)  # so that early participants are spread over all models
    return slots


def _random(config: StudyConfig, purpose: str, *index: int | str) -> random.Random:
    return random.Random(derive_seed(config.seed, f"study/{purpose}", *index))


def _deal_images(config: StudyConfig, images: Sequence[str], generator: random.Random) -> list[list[str]]:
    """The images of each subject: always those assigned least often so far, ties broken at random."""
    dealt: Counter[str] = Counter()
    hands = []
    for _ in range(config.subjects_per_model):
        order = sorted(images, key=lambda name: (dealt[name], generator.random()))
        hand = order[: config.trials_per_subject]
        dealt.update(hand)
        generator.shuffle(hand)
        hands.append(hand)
    return hands


def _balance_sides(hands: Sequence[Sequence[str]], generator: random.Random) -> dict[tuple[int, str], bool]:
    """(subject, image) -> whether the original is first, balanced for every subject and for every image at once.

    Each subject's trials are paired at random, and so are each image's; the two trials of a pair get opposite sides.
    Every trial is in at most one pair of either kind, so the pairs form paths and even cycles; sides alternate along
    them.
    """
    places = [(number, image) for number, hand in enumerate(hands) for image in hand]
    generator.shuffle(places)
    partners: dict[tuple[int, str], list[tuple[int, str]]] = {place: [] for place in places}
    for side in (0, 1):
        waiting: dict[int | str, tuple[int, str]] = {}
        for place in places:
            other = waiting.pop(place[side], None)
            if other is None:
                waiting[place[side]] = place
            else:
                partners[place].append(other)
                partners[other].append(place)
    firsts: dict[tuple[int, str], bool] = {}
    for start in places:
        if start in firsts:
            continue
        firsts[start] = generator.random() < 0.5
        todo = [start]
        while todo:
            place = todo.pop()
            for other in partners[place]:
                if other not in firsts:
                    firsts[other] = not firsts[place]
                    todo.append(other)
    return firsts


def _with_checks(
    config: StudyConfig, pairs: list[Trial], images: Sequence[str], spares: Sequence[str], generator: random.Random
) -> tuple[Trial, ...]:
    """Practice first, then the pairs, in as many equal parts as there are checks, with a check somewhere in each."""
    seen = {pair.image for pair in pairs}
    others = [name for name in images if name not in seen]
    generator.shuffle(others)
    shuffled = list(spares)
    generator.shuffle(shuffled)
    unused = (shuffled + others)[: config.num_practice_trials + config.num_attention_checks]
    sides = [bool(number % 2) for number in range(len(unused))]
    generator.shuffle(sides)
    practice = config.num_practice_trials
    extra = [
        Trial("practice" if number < practice else "check", name, first)
        for number, (name, first) in enumerate(zip(unused, sides, strict=True))
    ]
    trials = list(pairs)
    for number, check in enumerate(extra[practice:]):
        start, stop = (len(pairs) * part // config.num_attention_checks for part in (number, number + 1))
        trials.insert(number + generator.randint(start, max(start, stop - 1)), check)
    return (*extra[:practice], *trials)
