"""`sr3 train --from`: how a stage starts, resumes without its parent, and what is refused before a file is written."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch

from cluster.cli import main
from cluster.commands import train
from pipelines.runs.run_folder import Run, create_run, data_fingerprints, open_run, read_metrics
from pipelines.settings.train import RunConfig
from pipelines.training.fine_tuning import start_stages
from pipelines.training.worker_group import Team
from pipelines.training.worker_loop import train_as_worker
from sr3core.config import to_dict
from sr3core.errors import CheckpointError, ConfigError
from tests.parents import stage, trained
from tests.synthetic_shards import write_shards


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Data, a parent, and the configuration of its child."""
    write_shards(tmp_path / "data", "8-16", [32], validation=4)
    trained(tmp_path / "parent", stage(8, 16))
    config = RunConfig(name="child", stages=(stage(8, 16, optimizer__learning_rate=1e-5),))
    (tmp_path / "child.json").write_text(json.dumps(to_dict(config)))
    return tmp_path


def arguments(place: Path, *more: str) -> list[str]:
    places = ["--data", str(place / "data"), "--out", str(place / "run")]
    return ["--config", str(place / "child.json"), *places, *more]


def trained_from(place: Path, *more: str) -> tuple[Run, list[str]]:
    """What the command does, with the stage's only worker in this process."""
    options = train.read(arguments(place, *more))
    config, parents = train.find_start(options, options.run_config)
    fingerprints = data_fingerprints(options.prepared_data, config)
    run = create_run(options.out, config, options.prepared_data, fingerprints, options.fresh)
    lines = list(start_stages(run, parents, options.partial))
    train_as_worker(run.stages[0], Team(0, 1, torch.device("cpu")), lambda _: None)
    return open_run(options.out), lines


def test_a_stage_starts_and_resumes_without_its_parent(place):
    parent = ["--from", str(place / "parent")]
    run, lines = trained_from(place, *parent)
    assert lines == [f"8-16: starts from {place}/parent, stage 8-16, step 3; {lines[0].partition('; ')[2]}"]
    assert "its model differs" not in lines[0]
    steps = [line["step"] for line in read_metrics(run.stages[0].metrics) if line["kind"] == "validation"]
    assert steps == [0, 2]
    shutil.rmtree(place / "parent")
    run, lines = trained_from(place, *parent, "--num-steps", "3")
    assert lines == []
    assert run.stages[0].weights.newest().step == 3


def test_several_places_are_all_kept(place):
    assert train.read(arguments(place, "--from", "a", "--from", "8-16=b")).start_from == ("a", "8-16=b")


def test_another_start_or_none_is_another_experiment(place):
    trained_from(place, "--from", str(place / "parent"))
    with pytest.raises(ConfigError, match=r"initial_weights: '\w{64}' -> None\. Choose another --out"):
        trained_from(place)
    shutil.copytree(place / "parent", place / "copy")
    trained_from(place, "--from", str(place / "copy"))  # the same weights
    weights = place / "copy" / "8-16" / "checkpoints" / "step-00000003" / "ema.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"ema\.safetensors is damaged: its sha256 is not the recorded one"):
        trained_from(place, "--from", str(place / "copy"))


def test_a_dry_run_names_the_parent_and_writes_nothing(place, capsys):
    assert main(["train", *arguments(place, "--from", str(place / "parent"), "--dry-run")]) == 0
    assert f"  from {place}/parent, stage 8-16, step 3" in capsys.readouterr().out
    assert not (place / "run").exists()


REFUSED = {
    "another width": (["--from", "wide"], r"from: 8-16: .*does not fit the model: .*; --partial takes over what fits"),
    "another width in part": (["--from", "wide", "--partial"], "not even its first layer fits"),
    "partial alone": (["--partial"], "partial: it needs --from"),
    "a stage too many": (["--from", "16-32=parent"], "from: child has no stage '16-32', .*8-16"),
    "no place": (["--from", "nowhere"], "from: .*nowhere does not exist; name a run, a registry"),
    "no weights": (["--from", "child.json"], r"child\.json cannot be read as safetensors"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_start_is_refused_in_a_line(place, capsys, case):
    trained(place / "wide", stage(8, 16, model__unet__base_channels=16))
    words, message = REFUSED[case]
    words = [re.sub(r"(wide|parent|nowhere|child\.json)$", rf"{place}/\1", word) for word in words]
    assert main(["train", *arguments(place, *words)]) != 0
    said = [line for line in capsys.readouterr().err.splitlines() if not line.endswith("loading …")]  # if it takes long
    assert len(said) == 1, said
    assert re.search(message, said[0]), said
    assert not (place / "run").exists()
