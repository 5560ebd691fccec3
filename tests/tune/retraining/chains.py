"""A chain of retrainings on real photos, tiny: its configuration, its source, its states."""

import json
import shutil
from pathlib import Path
from typing import Any

from cluster.cli import main
from pipelines.settings.evaluate import EvaluateConfig
from pipelines.settings.prepare import PrepareConfig
from pipelines.settings.presets import small_stage
from pipelines.settings.train import RunConfig
from sr3core.config import override, to_dict
from tests.shallow import SHALLOW
from tune.retraining.settings import PromotionConfig, RetrainConfig
from tune.search.settings import SearchConfig


def make_config(folder: Path, num_steps: int | None, **changes: Any) -> RetrainConfig:
    """A chain in a folder: 6 training steps the first time, which achieve almost nothing, then num_steps."""
    stage = override(
        small_stage(8, 16, base_channels=8, num_steps=6, num_workers=1),
        placement__num_workers=0,
        checkpoint_every=40,
        num_lanes=4,
        validation_every=1000,
        num_validation_images=8,
        optimizer__warmup_steps=5,
        optimizer__ema_decay=0.9,
        **SHALLOW,
    )
    values = {
        "prepare": PrepareConfig(
            source=str(folder / "photos"),
            out=str(folder / "data"),
            stages=("8-16",),
            validation_fraction=0.2,
            test_fraction=0.3,
            samples_per_shard=8,
            num_workers=2,
        ),
        "run": RunConfig(name="tiny", stages=(stage,)),
        "registry": str(folder / "models"),
        "work": str(folder / "work"),
        "num_steps": num_steps,
        "searches": (
            SearchConfig(
                stage="8-16",
                num_steps=3,
                num_trials=7,
                num_images=6,
                warm_starts=(),
                features="seeded",
                confirm_split=None,
                num_concurrent=1,  # a process for all trials
            ),
        ),
        "evaluate": EvaluateConfig(schedule=None if changes.get("searches", True) else "3"),
        "promotion": PromotionConfig(features="seeded"),
        **changes,
    }
    return RetrainConfig(**values)


def write(folder: Path, config: RetrainConfig) -> str:
    """Write the file that `sr3 retrain` takes."""
    path = folder / "retrain.json"
    path.write_text(json.dumps(to_dict(config)))
    return str(path)


def add_photos(photos: Path, folder: Path, first: int, last: int) -> None:
    """Add some of the bundled photos to the chain's source."""
    (folder / "photos").mkdir(parents=True, exist_ok=True)
    for path in sorted(photos.glob("*.jpg"))[first:last]:
        shutil.copy(path, folder / "photos" / path.name)


def state(folder: Path, number: int) -> dict[str, Any]:
    """A retraining's state.json."""
    return json.loads((folder / "work" / f"retraining-{number:04d}" / "state.json").read_text())


def retrained(folder: Path, num_steps: int | None, *options: str, **changes: Any) -> int:
    """Run `sr3 retrain` in this process; its exit status."""
    return main(["retrain", write(folder, make_config(folder, num_steps, **changes)), *options])


def moved(chain: Path, folder: Path) -> Path:
    """A copy of a chain at another place."""
    return Path(shutil.copytree(chain, folder))
