"""Training from other weights: where they are found, what is written, what is refused, and how it resumes."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pipelines.runs.parent_weights import ParentPlace, find_parents, with_initial_weights
from pipelines.runs.run_folder import Run, create_run, data_fingerprints, open_run
from pipelines.settings.train import RunConfig
from pipelines.training.fine_tuning import start_stages
from pipelines.training.parallel_stages import train_run
from sr3core.checkpoint import list_checkpoints, sampling_weights
from sr3core.config import fingerprint
from sr3core.errors import ConfigError, DataError
from tests.parents import stage, trained
from tests.synthetic_shards import write_shards


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


def test_a_configuration_that_names_weights_is_not_trained_from_random_ones(tmp_path, data):
    config = RunConfig(name="child", stages=(stage(8, 16, initial_weights="ab" * 32),))
    run = create_run(tmp_path / "run", config, data, data_fingerprints(data, config), fresh=False)
    with pytest.raises(ConfigError, match=r"8-16 starts from weights of SHA-256 abababababababab….*--from PLACE"):
        train_run(run)
