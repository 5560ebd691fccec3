"""`sr3 demo`: the whole chain on bundled photos. It reads from top to bottom, like a script of your own."""

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pipelines
from pipelines.evaluation.evaluate import evaluate_run
from pipelines.evaluation.metric_intervals import tabulate
from pipelines.prepare.preparation import prepare
from pipelines.report.html_report import write_report
from pipelines.runs.run_folder import create_run, data_fingerprints, local_path, write_atomic
from pipelines.sampling.held_out import upscale_split
from pipelines.settings.evaluate import EvaluateConfig
from pipelines.settings.prepare import PrepareConfig
from pipelines.settings.presets import demo as demo_preset
from pipelines.training.parallel_stages import train_run
from sr3core import strict_json
from sr3core.errors import Sr3Error
from tune.search.schedule_search import search
from tune.search.settings import SearchConfig

PHOTOS = Path(pipelines.__file__).parent / "demo_photos"
log = logging.getLogger(__name__)


def run_demo(out: Path) -> Path:
    """Prepare, train, search, upscale, evaluate and report in `out`; steps that are done are not repeated.

    Needs a running Ray. Returns the report's path.

    Raises:
        Sr3Error: a stage failed to train.
    """
    out = local_path(out)
    data = str(out / "data")
    clock = Clock(out / "timings.json")

    prepare_config = PrepareConfig(
        source=str(PHOTOS),
        out=data,
        stages=("12-24", "24-48", "12-48"),
        validation_fraction=0.1,
        test_fraction=0.1,
        samples_per_shard=64,
    )
    clock.part("prepare", lambda: prepare(prepare_config))

    preset = demo_preset()
    run = create_run(out, preset, data, data_fingerprints(data, preset), fresh=False)
    results = clock.part("train", lambda: train_run(run))
    failed = [f"{result.stage}: {result.error}" for result in results if result.error]
    if failed:
        raise Sr3Error("training failed: " + "; ".join(failed))

    for stage in run.cascade():
        config = SearchConfig(
            stage=stage.name,
            num_steps=10,
            num_trials=10,
            num_refinements=6,
            num_images=40,
            num_references=96,  # features of a thousand take longer than the trials
            num_concurrent=2,
            confirm_defaults="best",
        )
        clock.part(f"search {stage.name}", lambda config=config: search(str(out), config))

    held_out = EvaluateConfig(split="test", num_actors=2)
    clock.part("upscale", lambda: upscale_split(str(out), held_out))
    evaluation = clock.part("evaluate", lambda: evaluate_run(str(out), held_out))
    print(tabulate(evaluation))
    clock.write()
    report = clock.part("report", lambda: write_report(str(out)))
    print(clock.describe())
    return report


class Clock:
    """Wall-clock seconds of each step, stored with the run; steps that are not repeated keep their first times."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._parts: list[dict[str, Any]] = []

    def part(self, name: str, work: Callable[[], Any]) -> Any:
        """Do a step and record how long it took."""
        print(f"\n== {name}", flush=True)
        start = time.perf_counter()
        result = work()
        self._parts.append({"name": name, "seconds": round(time.perf_counter() - start, 1)})
        return result

    def write(self) -> None:
        """Write timings.json, unless an earlier run, which did more of the work, wrote it."""
        if not self._path.is_file():
            write_atomic(self._path, strict_json.dumps({"parts": self._parts}, indent=1))

    def describe(self) -> str:
        """One line per step."""
        lines = [f"{part['name']:<16} {part['seconds']:7.1f} s" for part in self._parts]
        return "\n".join(["", *lines, f"{'total':<16} {sum(part['seconds'] for part in self._parts):7.1f} s"])
