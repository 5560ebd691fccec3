"""Training from other weights: where they are found, what is written, what is refused, and how it resumes."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from cluster.cli import main
from pipelines.runs.parent_weights import ParentPlace, find_parents, with_initial_weights
from pipelines.runs.run_folder import Run, create_run, data_fingerprints, open_run, read_metrics
from pipelines.settings.presets import small_stage
from pipelines.settings.train import RunConfig, TrainConfig
from pipelines.training.fine_tuning import start_stages
from pipelines.training.parallel_stages import train_run
from sr3core.checkpoint import list_checkpoints, sampling_weights, save_checkpoint, take_snapshot
from sr3core.config import fingerprint, override, to_dict
from sr3core.errors import ConfigError, DataError
from sr3core.training import create_state
from tests.synthetic_shards import write_shards


def stage(low: int, high: int, **changes) -> TrainConfig:
    small = small_stage(low, high, base_channels=8, num_steps=2, num_workers=0)
    return override(small, **{"batch_size": 16, "num_validation_images": 4, **changes})


def trained(path: Path, *stages: TrainConfig, step: int = 3) -> Run:
    """A run whose stages have a checkpoint of random weights that are not those of any seed."""
    run = create_run(path, RunConfig(name="parent", stages=stages), "data", {}, fresh=False)
    for found in run.stages:
        state = create_state(found.model, found.config.optimizer, seed=99)
        with torch.no_grad():
            for parameter in (*state.model.parameters(), *(state.ema or state.model).parameters()):
                parameter.add_(0.02)
        state.step = step
        save_checkpoint(found.checkpoints, take_snapshot(state), {"provenance": {"fingerprint": "f"}})
    return run


@pytest.fixture
def data(tmp_path: Path) -> str:
    write_shards(tmp_path / "data", "8-16", [32], validation=4)
    return write_shards(tmp_path / "data", "16-32", [32], validation=4)


def place(path: object, name: str | None = None) -> ParentPlace:
    return ParentPlace(str(path), str(path), name)


def started(path: Path, data: str, config: RunConfig, *places: ParentPlace, partial: bool = False) -> Run:
    parents = find_parents(config, places)
    config = with_initial_weights(config, parents)
    run = create_run(path, config, data, data_fingerprints(data, config), fresh=False)
    assert len(list(start_stages(run, parents, partial))) == len(parents)
    return run


def test_a_stage_starts_from_the_average_at_step_0_with_a_new_optimizer(tmp_path, data):
    parent = trained(tmp_path / "parent", stage(8, 16))
    config = RunConfig(name="child", stages=(stage(8, 16, optimizer__learning_rate=1e-5),))
    (child,) = started(tmp_path / "child", data, config, place(tmp_path / "parent")).stages
    source = sampling_weights(parent.stages[0].weights.newest())
    (first,) = list_checkpoints(child.checkpoints)
    assert first.step == 0
    for name in ("model", "ema"):
        ours, theirs = load_file(first.path / f"{name}.safetensors"), load_file(source)
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert torch.load(first.path / "optimizer.pt", weights_only=True)["state"] == {}
    record = json.loads((child.path / "start.json").read_text())
    assert record["sha256"] == child.config.initial_weights == first.state["parent"]["sha256"]
    assert (record["location"], record["stage"], record["step"]) == (str(tmp_path / "parent"), "8-16", 3)
    assert record["fingerprint"] == fingerprint(parent.stages[0].config)
    assert open_run(tmp_path / "child").provenance["parents"]["8-16 weights"] == record["sha256"]


def test_the_same_start_gives_the_same_bytes_and_another_seed_other_new_weights(tmp_path, data):
    trained(tmp_path / "parent", stage(8, 16))
    kinds = {"a": {}, "b": {}, "c": {"seed": 5}}
    digests = {}
    for name, changes in kinds.items():
        config = RunConfig(name="child", stages=(stage(8, 16, model__unet__attention_sizes=(16,), **changes),))
        run = started(tmp_path / name, data, config, place(tmp_path / "parent"), partial=True)
        digests[name] = list_checkpoints(run.stages[0].checkpoints)[0].state["sha256"]["model.safetensors"]
    assert digests["a"] == digests["b"] != digests["c"]


def test_every_kind_of_place_leads_to_the_same_weights(tmp_path, data):
    parent = trained(tmp_path / "parent", stage(8, 16), stage(16, 32))
    config = RunConfig(name="child", stages=(stage(8, 16),))
    info = parent.stages[0].weights.newest()
    shutil.copytree(info.path, tmp_path / "elsewhere")
    places = [tmp_path / "parent", tmp_path / "parent" / "8-16", info.path, tmp_path / "elsewhere"]
    found = [find_parents(config, [place(path)])["8-16"] for path in (*places, info.path / "ema.safetensors")]
    assert len({parent.sha256 for parent in found}) == 1
    assert [parent.step for parent in found] == [3, 3, 3, 3, None]


def test_cascades_are_matched_by_name_and_a_stage_can_have_its_own_place(tmp_path, data):
    trained(tmp_path / "both", stage(8, 16), stage(16, 32))
    trained(tmp_path / "one", stage(8, 16), step=7)
    config = RunConfig(name="child", stages=(stage(8, 16), stage(16, 32)))
    found = find_parents(config, [place(tmp_path / "both")])
    assert {name: (parent.stage, parent.step) for name, parent in found.items()} == {
        "8-16": ("8-16", 3),
        "16-32": ("16-32", 3),
    }
    found = find_parents(config, [place(tmp_path / "both"), place(tmp_path / "one", "8-16")])
    assert {name: parent.step for name, parent in found.items()} == {"8-16": 7, "16-32": 3}
    found = find_parents(config, [place(tmp_path / "one", "16-32")])
    assert {name: parent.stage for name, parent in found.items()} == {"16-32": "8-16"}


def test_places_that_have_nothing_for_a_stage(tmp_path, data):
    trained(tmp_path / "one", stage(8, 16))
    trained(tmp_path / "both", stage(8, 16), stage(16, 32))
    config = RunConfig(name="child", stages=(stage(8, 16), stage(16, 32)))
    with pytest.raises(ConfigError, match=r"one has no stage 16-32, but 8-16; name .*--from 16-32=\S+one/8-16"):
        find_parents(config, [place(tmp_path / "one")])
    with pytest.raises(ConfigError, match="8-16 has two places"):
        find_parents(config, [place(tmp_path / "one", "8-16"), place(tmp_path / "both", "8-16")])
    with pytest.raises(DataError, match=r"nowhere does not exist; name a run, a registry, RUN/STAGE"):
        find_parents(config, [place(tmp_path / "nowhere")])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty holds neither config\.json nor state\.json"):
        find_parents(config, [place(tmp_path / "empty")])


def test_residuals_are_drawn_in_the_parents_unit(tmp_path, data):
    scaled = {"model__objective__residual": "upsampled", "model__objective__residual_scale": (0.1, 0.2, 0.3)}
    trained(tmp_path / "parent", stage(8, 16, **scaled))
    config = RunConfig(name="child", stages=(stage(8, 16, model__objective__residual="upsampled"),))
    (child,) = started(tmp_path / "child", data, config, place(tmp_path / "parent")).stages
    assert child.config.model.objective.residual_scale == (0.1, 0.2, 0.3)


def train(tmp_path: Path, capsys: pytest.CaptureFixture, *arguments: str) -> tuple[int, str]:
    """`sr3 train` of the configuration in child.json, in this process; status, and all that was printed."""
    config = RunConfig(name="child", stages=(stage(8, 16, optimizer__learning_rate=1e-5),))
    (tmp_path / "child.json").write_text(json.dumps(to_dict(config)))
    places = ["--data", str(tmp_path / "data"), "--out", str(tmp_path / "run")]
    status = main(["train", "--config", str(tmp_path / "child.json"), *places, *arguments])
    captured = capsys.readouterr()
    return status, captured.out + captured.err


def test_the_command_starts_resumes_without_its_parent_and_refuses_another(tmp_path, data, capsys, ray_session):
    trained(tmp_path / "parent", stage(8, 16))
    shutil.copytree(tmp_path / "parent", tmp_path / "other")
    parent = ["--from", str(tmp_path / "parent")]
    status, said = train(tmp_path, capsys, *parent, "--dry-run")
    assert (status, f"from {tmp_path}/parent, stage 8-16, step 3" in said) == (0, True)
    assert not (tmp_path / "run").exists()
    status, said = train(tmp_path, capsys, *parent)
    assert (status, f"8-16: starts from {tmp_path}/parent, stage 8-16, step 3; " in said) == (0, True), said
    assert "its model differs" not in said
    lines = read_metrics(open_run(tmp_path / "run").stages[0].metrics)
    assert [line["step"] for line in lines if line["kind"] == "validation"] == [0, 2]
    shutil.rmtree(tmp_path / "parent")
    status, said = train(tmp_path, capsys, *parent, "--num-steps", "3")
    assert (status, "starts from" in said, "step 3, done" in said) == (0, False, True), said
    status, said = train(tmp_path, capsys)
    assert status != 0
    assert "initial_weights" in said
    (tmp_path / "other" / "8-16" / "checkpoints" / "step-00000003" / "ema.safetensors").unlink()
    status, said = train(tmp_path, capsys, "--from", str(tmp_path / "other"))
    assert status != 0
    assert "ema.safetensors is missing" in said


def test_the_command_refuses_what_cannot_start_before_it_writes(tmp_path, data, capsys):
    trained(tmp_path / "parent", stage(8, 16, model__unet__base_channels=16))
    for arguments, message in (
        (["--from", f"{tmp_path}/parent"], r"from: 8-16: .*does not fit the model: .*; --partial takes over what fits"),
        (["--from", f"{tmp_path}/parent", "--partial"], "not even its first layer fits"),
        (["--partial"], "partial: it needs --from"),
        (["--from", f"16-32={tmp_path}/parent"], "from: child has no stage '16-32', .*8-16"),
    ):
        status, said = train(tmp_path, capsys, *arguments)
        assert status != 0
        assert len([line for line in said.splitlines() if "from" in line or "partial" in line]) == 1, said
        assert re.search(message, said), said
    assert not (tmp_path / "run").exists()


def test_a_configuration_that_names_weights_is_not_trained_from_random_ones(tmp_path, data):
    config = RunConfig(name="child", stages=(stage(8, 16, initial_weights="ab" * 32),))
    run = create_run(tmp_path / "run", config, data, data_fingerprints(data, config), fresh=False)
    with pytest.raises(ConfigError, match=r"8-16 starts from weights of SHA-256 abababababababab….*--from PLACE"):
        train_run(run)
