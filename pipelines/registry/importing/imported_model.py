"""Another program's weights as a model folder, for which every command that takes a trained run works."""

import re
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import save_file  # pyright: ignore[reportUnknownVariableType]
from torch import Tensor

from pipelines.registry.importing.published import Published, all_published
from pipelines.registry.importing.weights_file import CLASSES, identify, read_weights
from pipelines.registry.model_card import render_card
from pipelines.registry.model_folder import CARD, CONFIG
from pipelines.runs.run_folder import RUN_FORMAT_VERSION, open_run
from pipelines.runtime.provenance import provenance
from pipelines.settings.export import ExportConfig
from pipelines.settings.import_model import ImportConfig
from pipelines.settings.train import RunConfig
from pipelines.storage.atomic_writers import put_file
from pipelines.storage.uris import absolute, is_remote, join, path_of
from sr3core import strict_json
from sr3core.checkpoint import CHECKPOINT_FORMAT_VERSION, sha256_of
from sr3core.config import to_dict
from sr3core.errors import ConfigError, StorageError


@dataclass(frozen=True, slots=True)
class WeightsFile:
    """A file of weights that has been read and recognised."""

    path: Path
    published: Published
    weights: Mapping[str, Tensor]

    @property
    def step(self) -> int:
        """The training step in the file's name, or 0."""
        found = re.search(r"I(\d+)_E\d+", self.path.name)
        return int(found[1]) if found else 0


def read_file(path: str, known: Iterable[Published] | None = None) -> WeightsFile:
    """Read a file and find out which network it holds.

    Args:
        path: the file.
        known: the networks that it may hold; by default all published ones.

    Raises:
        CheckpointError: it cannot be read, or holds another network.
        StorageError: it is not on this machine.
    """
    if is_remote(path):
        raise StorageError(f"{path} is in a bucket; copy it to this machine, and name the copy")
    file = Path(path_of(path))
    weights = read_weights(file)
    return WeightsFile(file, identify(file, weights, all_published() if known is None else known), weights)


def import_model(file: WeightsFile, out: str, config: ImportConfig) -> dict[str, int]:
    """Write a model folder.

    Args:
        file: the weights.
        out: a new folder, or s3:// prefix; see model_folder.check_new.
        config: what to make of the network's classes.

    Returns:
        bytes of each file that was written, by its path in the folder.

    Raises:
        ConfigError: a class is named for a network without classes.
    """
    if config.image_class is not None and CLASSES not in file.weights:
        raise ConfigError(f"image_class: {file.path} holds a network without classes; leave out --image-class")
    with tempfile.TemporaryDirectory(prefix="sr3-import-") as name:
        folder = Path(name)
        _write_stage(file, folder / file.published.stage.name, config)
        (folder / CONFIG).write_text(_configuration(file, config), encoding="utf-8")
        run = open_run(folder)
        (folder / CARD).write_text(render_card(run, run.stages, _card_settings(file), ()), encoding="utf-8")
        sizes: dict[str, int] = {}
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            put_file(str(path), join(absolute(out), *path.relative_to(folder).parts))
            sizes["/".join(path.relative_to(folder).parts)] = path.stat().st_size
    return sizes


def _write_stage(file: WeightsFile, folder: Path, config: ImportConfig) -> None:
    schedule = file.published.schedule
    (folder / "schedules").mkdir(parents=True)
    (folder / "schedules" / f"best-{schedule.num_steps}.json").write_text(schedule.to_json(), encoding="utf-8")
    weights = folder / "model.safetensors"
    save_file(converted(file, config.image_class), weights, {"format": "pt"})
    state = {
        "format_version": CHECKPOINT_FORMAT_VERSION,
        "step": file.step,
        "sha256": {weights.name: sha256_of(weights)},
        "imported_from": sha256_of(file.path),
    }
    (folder / "state.json").write_text(strict_json.dumps(state, indent=1), encoding="utf-8")


def converted(file: WeightsFile, image_class: int | None) -> dict[str, Tensor]:
    """The weights by the names of our network, in float32; a class is a constant in the embedding of the step.

    Args:
        file: the weights.
        image_class: index of the class; None for the mean of the classes' embeddings.
    """
    prefix = file.published.prefix
    tensors = {
        name.removeprefix(prefix): value.float().clone().contiguous()
        for name, value in file.weights.items()
        if name.startswith(prefix)
    }
    if (classes := tensors.pop(CLASSES, None)) is not None:
        tensors["time_embed.2.bias"] += classes.mean(0) if image_class is None else classes[image_class]
    return tensors


def _configuration(file: WeightsFile, config: ImportConfig) -> str:
    run = RunConfig(name=f"imported-{file.published.stage.name}", stages=(file.published.stage,))
    digest = sha256_of(file.path)
    made = {key: value for key, value in provenance(run, {file.path.name: digest}).items() if key != "config"}
    imported = {
        "source": file.published.source,
        "file": file.path.name,
        "sha256": digest,
        "trained_on": file.published.trained_on,
    }
    if CLASSES in file.weights:
        imported["class"] = "the mean of all" if config.image_class is None else str(config.image_class)
    content = {
        "format": "sr3-run",
        "format_version": RUN_FORMAT_VERSION,
        "config": to_dict(run),
        "data": "",
        "data_fingerprints": {},
        "provenance": made | {"imported": imported},
    }
    return strict_json.dumps(content, indent=1)


def _card_settings(file: WeightsFile) -> ExportConfig:
    name = file.published.source.removeprefix("https://github.com/")
    return ExportConfig(weights="float32", title=f"{file.published.stage.name} of {name}")
