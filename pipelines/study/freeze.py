"""`sr3 study new`: turns folders of images into a study that can no longer be changed."""

import dataclasses
import hashlib
import random
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipelines.evaluation.image_sets import ImageSet, check_pairs
from pipelines.evaluation.measurer import read_pixels
from pipelines.images.compact_png import encode_compact_png
from pipelines.images.file_names import IgnoredFiles
from pipelines.runs.run_folder import local_path
from pipelines.runtime.provenance import provenance
from pipelines.storage.local_files import local_errors
from pipelines.study import pictures
from pipelines.study.config import StudyConfig
from pipelines.study.design import Slot, assign
from pipelines.study.study_folder import Pictures, Study, StudyPlan, open_study, plan_to_json
from sr3core import strict_json
from sr3core.config import to_dict
from sr3core.errors import ConfigError, DataError
from sr3core.randomness import derive_seed


@dataclass(frozen=True, kw_only=True, slots=True)
class Folders:
    """Where a study's images are; they are paired by file name without extension."""

    references: str
    """The originals."""
    models: Mapping[str, str]
    """Name -> folder of its outputs, of the originals' sizes."""
    inputs: str | None = None
    """The low-resolution inputs; Task 1 shows them."""


@dataclass(frozen=True, slots=True)
class Draft:
    """A consistent study, before anything is written."""

    config: StudyConfig
    files: dict[str, dict[str, str]]
    """Role ("reference", "input" or a model) -> image -> where it is."""
    images: tuple[str, ...]
    slots: tuple[Slot, ...]
    ignored: IgnoredFiles
    """What the folders hold besides images."""

    @property
    def spoilt(self) -> list[str]:
        """The images of which a spoilt copy is needed."""
        return sorted({trial.image for slot in self.slots for trial in slot.trials if trial.kind != "trial"})

    def describe(self) -> str:
        """The number of subjects, and what each of them does."""
        config = self.config
        trials = f"{config.trials_per_subject} of {config.num_images} images"
        return (
            f"task {config.task}: {len(self.slots)} subjects, each {trials}, {config.num_attention_checks} attention"
            f" checks and {config.num_practice_trials} practice trials, about {config.minutes_per_subject} min each"
        )


def draft_study(folders: Folders, config: StudyConfig) -> Draft:
    """Check the folders, choose images and fill the slots; writes nothing.

    Raises:
        DataError: folders are missing or do not pair.
        ConfigError: no model, no inputs for Task 1, or too few images for what is configured.
    """
    if not folders.models:
        raise ConfigError("model: name at least one, as --model NAME=DIR")
    if config.task == 1 and folders.inputs is None:
        raise ConfigError("inputs: Task 1 shows the low-resolution input; name its folder with --inputs DIR")
    roles = {"reference": folders.references, **folders.models}
    if config.task == 1 and folders.inputs is not None:
        roles["input"] = folders.inputs
    sets = {role: ImageSet.read(folder, role) for role, folder in roles.items()}
    names = check_pairs(sets["reference"], [images for role, images in sets.items() if role != "reference"])
    if len(names) < config.num_images:
        fitting = min(config.trials_per_subject, config.most_trials(len(names)))
        raise ConfigError(
            f"num_images: {config.num_images} were requested, but the folders hold {len(names)}; add `--num-images"
            f" {len(names)} --trials-per-subject {fitting}`, or more images"
        )
    random.Random(derive_seed(config.seed, "study/choice")).shuffle(names)
    chosen, spares = sorted(names[: config.num_images]), sorted(names[config.num_images :])
    slots = assign(config, list(folders.models), chosen, spares)
    files = {role: dict(images.files) for role, images in sets.items()}
    ignored = IgnoredFiles()
    for images in sets.values():
        ignored.update(images.ignored)
    return Draft(config, files, tuple(chosen), tuple(slots), ignored)


def new_study(folders: Folders, config: StudyConfig, out: str) -> Study:
    """Freeze a study into a new folder, completely or not at all.

    Raises:
        ConfigError: see `draft_study`; or out already exists.
        DataError: see `draft_study`; or an image cannot be read, or sizes differ.
    """
    path = free_path(out)
    if not config.completion_code:
        config = dataclasses.replace(config, completion_code=secrets.token_hex(4).upper())
    draft = draft_study(folders, config)
    shown = read_pictures(draft)
    temporary = path.with_name(f".{path.name}-{secrets.token_hex(4)}.tmp")
    try:
        with local_errors(str(path)):
            _write(draft, shown, _named(folders), temporary)
            free_path(out)
            temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return open_study(path)


def free_path(out: str) -> Path:
    """Where a new study goes.

    Raises:
        ConfigError: something is there.
    """
    path = local_path(out)
    if path.exists():
        raise ConfigError(f"out: {path} already exists, and a frozen study is never changed; choose another folder")
    return path


def _write(draft: Draft, shown: "Shown", folders: Mapping[str, str], target: Path) -> None:
    (target / "images").mkdir(parents=True)
    plan = _plan(draft, shown, target / "images")
    parents = {role: str(local_path(folder)) for role, folder in folders.items()}
    text = plan_to_json(to_dict(plan), provenance(draft.config) | {"folders": parents})
    (target / "study.json").write_text(text, encoding="utf-8")
    keys = {"signing": secrets.token_urlsafe(32), "admin": secrets.token_urlsafe(24)}
    secret = target / "secrets.json"
    secret.touch(mode=0o600)
    secret.write_text(strict_json.dumps(keys), encoding="utf-8")


def _named(folders: Folders) -> dict[str, str]:
    found = {"references": folders.references, **folders.models}
    return found | ({"inputs": folders.inputs} if folders.inputs is not None else {})


@dataclass(frozen=True, slots=True)
class Shown:
    """Every image that the study can show, as a PNG without metadata; the keys are those of `Pictures`."""

    originals: dict[str, bytes]
    outputs: dict[str, dict[str, bytes]]
    inputs: dict[str, bytes]
    spoilt: dict[str, bytes]


def read_pictures(draft: Draft) -> Shown:
    """Decode, check and re-encode every image that the study can show.

    Raises:
        DataError: an image cannot be decoded, or sizes differ.
    """
    spoilt = draft.spoilt
    models = [role for role in draft.files if role not in ("reference", "input")]
    shown = Shown({}, {model: {} for model in models}, {}, {})
    for name in sorted({*draft.images, *spoilt}):
        original = read_pixels(draft.files["reference"][name])
        shown.originals[name] = encode_compact_png(original)
        for model in models if name in draft.images else ():
            shown.outputs[model][name] = encode_compact_png(_like(original, draft.files[model][name], model))
        if draft.config.task == 1:
            low = _smaller(original, draft.files["input"][name])
            shown.inputs[name] = encode_compact_png(pictures.enlarge(low, *original.shape[:2]))
        if name in spoilt:
            shown.spoilt[name] = encode_compact_png(pictures.spoil(original, draft.config.seed, name))
    return shown


def _like(original: np.ndarray, path: str, model: str) -> np.ndarray:
    output = read_pixels(path)
    if output.shape != original.shape:
        raise DataError(
            f"{path}: the output of {model} is {_size(output)}, the reference {_size(original)}; the images of a pair"
            " must have one size, or subjects could tell them apart by it"
        )
    return output


def _smaller(original: np.ndarray, path: str) -> np.ndarray:
    low = read_pixels(path)
    if low.shape[0] > original.shape[0] or low.shape[1] > original.shape[1]:
        raise DataError(f"{path}: the input is {_size(low)}, larger than the reference, {_size(original)}")
    return low


def _size(image: np.ndarray) -> str:
    return f"{image.shape[1]}x{image.shape[0]}"


def _plan(draft: Draft, shown: Shown, folder: Path) -> StudyPlan:
    """Write every image under a random name, all with the same number of bytes, in an order that reveals nothing."""
    groups = [shown.originals, *shown.outputs.values(), shown.inputs, shown.spoilt]
    places = [(number, name) for number, group in enumerate(groups) for name in group]
    secrets.SystemRandom().shuffle(places)
    named: list[dict[str, str]] = [{} for _ in groups]
    checksums = {}
    for (number, name), data in zip(places, pictures.pad(groups[n][name] for n, name in places), strict=True):
        file = f"{secrets.token_hex(16)}.png"
        (folder / file).write_bytes(data)
        named[number][name] = file
        checksums[file] = hashlib.sha256(data).hexdigest()
    originals, *outputs, inputs, spoilt = named
    return StudyPlan(
        config=draft.config,
        models=tuple(shown.outputs),
        images=draft.images,
        slots=draft.slots,
        pictures=Pictures(
            originals=originals, outputs=dict(zip(shown.outputs, outputs, strict=True)), inputs=inputs, spoilt=spoilt
        ),
        checksums=checksums,
    )
