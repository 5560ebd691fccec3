"""A real sweep of tiny trainings on Ray Tune: who continues, what fails, what is left, and how it resumes."""

from pathlib import Path

import pytest

from pipelines.runs.run_folder import data_fingerprints, open_run, read_metrics
from pipelines.settings.presets import small_stage
from pipelines.settings.train import PlacementConfig, RunConfig
from sr3core.config import override
from sr3core.errors import ConfigError
from tests.synthetic_shards import write_shards
from tune.sweeps.points import parse_axes, points_of
from tune.sweeps.records import SweepRecords, TrainingRecord
from tune.sweeps.settings import SweepConfig
from tune.sweeps.training_results import format_table, write_report
from tune.sweeps.trainings import sweep

RATES = ["optimizer.learning-rate=1e-3,1e-9,1e30"]
AXES = ("optimizer.learning_rate",)


@pytest.mark.usefixtures("ray_session")
def test_the_better_trainings_continue_and_the_same_command_passes_over_them(tmp_path: Path) -> None:
    data = write_shards(tmp_path / "data", "8-16", [16], validation=4)
    stage = override(
        small_stage(8, 16, base_channels=8, num_steps=8, num_workers=0),
        placement=PlacementConfig(num_workers=0),
        optimizer__warmup_steps=0,
    )
    points = points_of(stage, parse_axes(RATES))
    fingerprints = data_fingerprints(data, RunConfig(name="any", stages=(stage,)))
    config, out = SweepConfig(num_rungs=2, rung_factor=2, num_concurrent=1, max_retries=0), str(tmp_path / "out")

    def run() -> tuple[SweepRecords, list[str]]:
        lines: list[str] = []
        return sweep(out, points, data, fingerprints, config, lines.append), lines

    records, _ = run()
    good, slow, wild = (next(one for one in records.ended if one.name == point.name) for point in points)
    assert (good.status, good.step, len(good.losses)) == ("done", 8, 2)
    assert (slow.status, slow.step, len(slow.losses)) == ("stopped", 4, 1)
    assert good.losses[0] < slow.losses[0]
    assert wild.status == "failed"
    assert wild.error
    assert [one.name for one in records.ranked] == [good.name, slow.name, wild.name]
    (trained,) = open_run(tmp_path / "out" / good.name).stages
    held_out = {line["step"]: line["loss"] for line in read_metrics(trained.metrics) if line["kind"] == "validation"}
    assert (held_out[4], held_out[8]) == good.losses

    write_report(records, AXES, "tiny")
    written = {path.name for path in (tmp_path / "out").iterdir() if path.is_file()}
    assert written == {"sweep.json", "table.md"} | {
        f"{name}.{suffix}" for name in ("losses", *AXES) for suffix in ("svg", "png")
    }

    (tmp_path / "out" / "sweep" / f"{good.name}.json").unlink()  # as if the command had died before it knew
    again, lines = run()
    assert sorted(again.ended, key=lambda one: one.name) == sorted(records.ended, key=lambda one: one.name)
    assert sum(line.startswith("training ") for line in lines) == 1
    with pytest.raises(ConfigError, match="holds another sweep: points"):
        sweep(out, points[:2], data, fingerprints, config)


def test_the_table_ranks_by_steps_and_then_by_loss(tmp_path: Path) -> None:
    records = SweepRecords(str(tmp_path), {}, ["a", "b", "c", "d"])
    for name, status, step, losses in (
        ("a", "stopped", 4, (0.1,)),
        ("b", "done", 8, (0.5, 0.4)),
        ("c", "done", 8, (0.6, 0.3)),
        ("d", "failed", 0, ()),
    ):
        error = "NaN" if status == "failed" else None
        record = {"changes": {"x": name.upper()}, "status": status, "step": step, "losses": losses, "error": error}
        records.end(TrainingRecord(name=name, **record))  # type: ignore[arg-type]
    rows = [line for line in format_table(records, ["x"], "tiny").splitlines() if line.startswith("| ")][2:]
    assert [row.split(" | ")[0][2:] for row in rows] == ["C", "B", "A", "D"]
    assert "Failed: d: NaN" in format_table(records, ["x"], "tiny")
    assert SweepRecords(str(tmp_path), {}, ["a", "b", "c", "d"]).ranked == records.ranked
