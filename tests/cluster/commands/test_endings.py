"""Commands end with what they found and the next command."""

import dataclasses
from pathlib import Path

from cluster.commands.prepare import next_command
from cluster.training import describe_training
from pipelines.prepare.preparation import PrepareSummary
from pipelines.runs.run_folder import create_run, open_run
from pipelines.settings.presets import preset
from pipelines.settings.train import RunConfig
from sr3core import strict_json
from sr3core.config import override


def prepared(*stages: str) -> PrepareSummary:
    """What `sr3 prepare` returns of some stages."""
    counts = {stage: {"train": 45, "validation": 7, "test": 8} for stage in stages}
    return PrepareSummary(
        out="data",
        num_images=60,
        num_samples=counts,
        num_rejects={},
        num_shards_written=3,
        seconds=1.0,
        seconds_of={},
    )


def test_prepared_data_name_a_preset_that_they_fit() -> None:
    assert next_command(prepared("16-64")) == "next: sr3 train small-16-64 --data data --out RUN"
    assert next_command(prepared("20-40")) == "next: sr3 train PRESET --data data --out RUN"


def measured(config: RunConfig) -> RunConfig:
    """The run with the unit of its residuals, which is otherwise measured on the data."""
    stages = (
        override(stage, model__objective__residual_scale=(0.1,) * 3)
        if stage.model.objective.residual != "none"
        else stage
        for stage in config.stages
    )
    return dataclasses.replace(config, stages=tuple(stages))


def test_a_training_ends_with_its_verdict_and_the_search(tmp_path: Path) -> None:
    run = create_run(tmp_path, measured(preset("small-16-64")), "data", {}, fresh=False)
    (stage,) = run.stages
    stage.path.mkdir()
    losses = [(step, 1.0 - step / 200) for step in range(0, 101, 10)]
    lines = [strict_json.dumps({"kind": "validation", "step": step, "loss": loss}) for step, loss in losses]
    stage.metrics.write_text("\n".join(lines) + "\n")
    verdict, search, upscale = describe_training(open_run(tmp_path))
    assert verdict == "Held-out loss was still falling: longer training is likely to help."
    assert search == f"next: sr3 search --run {tmp_path} --stage 16-64"
    assert upscale == f"  or: sr3 upscale PHOTOS --run {tmp_path} --out DIR"


def test_a_cascade_from_noise_ends_with_sampling(tmp_path: Path) -> None:
    run = create_run(tmp_path, measured(preset("small-cascade")), "data", {}, fresh=False)
    assert list(describe_training(run)) == [f"next: sr3 sample --run {tmp_path} --out DIR"]
