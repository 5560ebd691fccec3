"""What a restart of the workers would meet again ends a training at once; what may pass does not."""

import shutil
from pathlib import Path

import pytest

from pipelines.runs.run_folder import Run, read_metrics
from pipelines.training.parallel_stages import train_run
from tests.faults.fault_runs import start


@pytest.fixture
def damaged(data, tmp_path) -> str:
    """The shards, with zeros in the middle of the training images; every file has its size."""
    copy = Path(shutil.copytree(data, tmp_path / "damaged"))
    (shard,) = copy.glob("8-16/train-*.tar")
    with shard.open("r+b") as file:
        file.seek(shard.stat().st_size // 2)
        file.write(bytes(4096))
    return str(copy)


def beginnings(run: Run) -> int:
    """How often the workers began: each time they measure the held-out loss of step 0."""
    (stage,) = run.stages
    return sum(line["kind"] == "validation" and line["step"] == 0 for line in read_metrics(stage.metrics))


@pytest.mark.parametrize("num_workers", [1, 2])
def test_damaged_data_end_a_training_at_once_with_the_workers_message(damaged, tmp_path, num_workers):
    placement = {"placement__num_workers": num_workers, "placement__cpus_per_worker": 0.25}
    run = start(tmp_path / "run", damaged, num_steps=20, **placement, placement__max_failures=3)
    (result,) = train_run(run)
    assert "run `sr3 verify` on its folder" in str(result.error)
    assert "\n" not in str(result.error)
    assert beginnings(run) == 1
