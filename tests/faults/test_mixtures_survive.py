"""A cascade that trains on two preparations by weight: killed on more workers, resumed, moved and evaluated."""

import json
import shutil

import pytest

from cluster.cli import main
from cluster.exits import DONE, FAILURE
from pipelines.runs.run_folder import Run, create_run, data_fingerprints, open_run
from pipelines.settings.mixtures import read_data
from pipelines.settings.presets import small_stage
from pipelines.settings.train import RunConfig
from pipelines.training.parallel_stages import train_run
from sr3core.config import override
from tests.faults.fault_runs import (
    NUM_STEPS,
    assert_identical,
    assert_same_losses,
    remove_orphans,
    start,
    start_held,
)
from tests.processes import kill, session_name, workers_of
from tests.synthetic_shards import write_shards


@pytest.fixture(scope="module")
def noise(tmp_path_factory) -> str:
    """Noise as shards of a stage that the photos of `data` have as well."""
    folder = tmp_path_factory.mktemp("mixture") / "noise"
    return write_shards(folder, "8-16", [20, 20], validation=12)


@pytest.fixture(scope="module")
def words(data: str, noise: str) -> list[str]:
    return [f"{data}=0.7", f"{noise}=0.3"]


@pytest.fixture(scope="module")
def alone(words: list[str], tmp_path_factory) -> Run:
    """The run without a fault, in one process."""
    run = start(tmp_path_factory.mktemp("mixed") / "run", read_data(words), placement__num_workers=0)
    assert [result.error for result in train_run(run)] == [None]
    return run


def test_one_of_two_workers_is_killed_and_they_follow_the_losses_of_one_on_each_preparation(
    words, alone, tmp_path, ray_session
):
    session = session_name()
    others = {process.pid for process in workers_of(session, "ray::RayTrainWorker")}
    training = start_held(tmp_path, words, ray_session, placement__num_workers=2, placement__cpus_per_worker=0.25)
    first, _ = (process for process in workers_of(session, "ray::RayTrainWorker") if process.pid not in others)
    kill(first)
    done = training.end()
    assert done.returncode == 0, done.stdout + done.stderr
    remove_orphans()
    assert_same_losses(open_run(tmp_path / "run"), alone)


def test_a_mixture_that_is_resumed_ends_with_the_same_weights(words, alone, tmp_path):
    for num_steps in (25, NUM_STEPS):
        run = start(tmp_path / "run", read_data(words), num_steps=num_steps, placement__num_workers=0)
        assert [(result.error, result.step) for result in train_run(run)] == [(None, num_steps)]
    assert_identical(run, alone)


def test_a_cascade_is_trained_on_a_mixture_and_measured_on_both_of_its_parts(tmp_path, ray_session, capsys):
    for name, held_out in (("a", 6), ("b", 3)):
        for stage in ("4-8", "8-16", "4-16"):
            write_shards(tmp_path / name, stage, [20, 20], validation=held_out)
    data = read_data([f"{tmp_path}/a=2", f"{tmp_path}/b=1"])
    stages = (small_stage(*sizes, base_channels=8, num_steps=10, num_workers=0) for sizes in ((4, 8), (8, 16)))
    config = RunConfig(name="cascade", stages=tuple(override(stage, num_validation_images=8) for stage in stages))
    run = create_run(tmp_path / "run", config, data, data_fingerprints(data, config), fresh=False)
    assert [result.error for result in train_run(run)] == [None, None]
    shutil.move(tmp_path / "b", tmp_path / "moved")
    command = ["evaluate", "--run", str(run.path), "--split", "validation", "--limit", "8", "--schedule", "2"]
    assert main(command) == FAILURE
    assert f"--data {tmp_path}/a NEW_FOLDER" in capsys.readouterr().err
    assert main([*command, "--data", f"{tmp_path}/a", f"{tmp_path}/moved"]) == DONE
    assert json.loads((run.path / "evaluation.json").read_text())["num_images"] == 8
    assert open_run(run.path).data == read_data([f"{tmp_path}/a=2", f"{tmp_path}/moved=1"])
