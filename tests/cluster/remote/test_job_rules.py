"""What a job may not hold: the paths in its options are found by the options' types, whatever they are called."""

from collections.abc import Iterator

import pytest

from cluster.catalog import COMMANDS
from cluster.commands import load
from cluster.options.fields import Option, options_of, paths_in
from cluster.remote.job_rules import check_paths, check_secrets
from sr3core.errors import ConfigError

ARGUMENTS = {
    "prepare": "--source /s --out /o --stages 16-64",
    "train": "faces-cascade --data /d --out /o",
    "ablate": "small-16-64 --data /d --out /o",
    "sweep": "small-16-64 --data /d --out /o --vary batch-size=8,16",
    "search": "--run /r --stage 16-64",
    "sample": "--run /r --out /o",
    "upscale": "/a.jpg --run /r --out /o",
    "evaluate": "--outputs gan=/g --references /r --out /o.json",
    "report": "/r",
    "study new": "--references /r --model SR3=/m --out /o --task 2",
    "study serve": "/s",
    "study results": "/s",
    "retrain": "/c.json",
    "models": "/m",
    "export": "/r --out /o",
    "import": "/w.pth --out /o",
    "status": "/r",
    "verify": "/d",
    "demo": "--out /o",
    "doctor": "--data /d --out /o",
}
"""A valid command line of every command that can be a job."""

NO_PATHS = {
    *("address", "stages", "only", "name", "stage", "classes", "promote"),
    *("host", "root_path", "forwarded_allow_ips"),
    *("participant_parameters", "completion_code", "completion_url", "title", "consent", "contact"),
    *("resources", "image_column", "label_column", "retry_rejects", "initial_weights"),
    *("license", "credits", "limits", "vary", "upload"),
    *("high_variables", "low_variables", "static_variables", "transform", "bounds", "blocks", "gap"),
    *("low_column", "low_suffix", "high_suffix", "metric", "notify"),
}
"""Fields of text that hold no path. A new one is either annotated as a Location or its kin, or is added here."""


def job_commands() -> list[str]:
    return [name for name, command in COMMANDS.items() if command.runs_as_job]


def options_read(command: str, more: str = "") -> object:
    return load(command).read([*ARGUMENTS[command].split(), *more.split()])


def text_options(command: str) -> Iterator[Option]:
    return (option for option in options_of(type(options_read(command))) if option.is_text)


def test_every_command_that_can_be_a_job_is_looked_at():
    assert set(ARGUMENTS) == set(job_commands())


@pytest.mark.parametrize("command", job_commands())
def test_every_text_option_is_a_path_or_known_to_be_none(command):
    unknown = {o.name for o in text_options(command) if o.paths is None and o.attributes[-1] not in NO_PATHS}
    assert not unknown, "annotate it as a Location (pipelines.settings.locations), or name it in NO_PATHS"


def test_what_is_known_to_be_no_path_exists_and_is_not_annotated():
    found = {o.attributes[-1] for command in job_commands() for o in text_options(command) if o.paths is None}
    assert found == NO_PATHS


@pytest.mark.parametrize("command", job_commands())
def test_absolute_paths_are_accepted(command):
    check_paths(options_read(command))


@pytest.mark.parametrize(
    ("command", "changed", "option"),
    [
        ("prepare", {"source": "photos"}, "--source: photos"),
        ("train", {"data": "data"}, "--data: data"),
        ("train", {"out": "runs/x"}, "--out: runs/x"),
        ("search", {"run": "runs/x"}, "--run: runs/x"),
        ("sample", {"grid": "grid.png"}, "--grid: grid.png"),
        ("sample", {"schedule": "250,runs/best.json"}, "--schedule: runs/best.json"),
        ("upscale", {"images": "a.jpg"}, "IMAGES: a.jpg"),
        ("upscale", {"images": "scans/**/*.jpg"}, r"IMAGES: scans/\*\*/\*.jpg"),
        ("evaluate", {"outputs": "gan=outputs"}, "--outputs: outputs"),
        ("evaluate", {"outputs": "/a outputs"}, "--outputs: outputs"),
        ("evaluate", {"samples": "/a b"}, "--samples: b"),
        ("evaluate", {"labels": "labels.csv"}, "--labels: labels.csv"),
        ("evaluate", {"classifier": "resnet.pt"}, "--classifier: resnet.pt"),
        ("report", {"study": "study"}, "--study: study"),
        ("study new", {"model": "b=outputs"}, "--model: outputs"),
        ("study serve", {"database": "sqlite:///study.sqlite"}, "--database: study.sqlite"),
        ("study results", {"out": "results"}, "--out: results"),
        ("doctor", {"data": "file://data"}, "--data: file://data"),
        ("train", {"64-256.placement.cache-folder": "cache"}, "--64-256.placement.cache-folder: cache"),
    ],
)
def test_a_relative_path_is_refused_wherever_it_stands(command, changed, option):
    ((name, value),) = changed.items()
    valid = ARGUMENTS[command].split()
    words = [value, *valid] if name == "images" else [*valid, f"--{name}", *value.split()]
    with pytest.raises(ConfigError, match=rf"^{option} is relative.*all nodes share"):
        check_paths(load(command).read(words))


@pytest.mark.parametrize(
    "command", ["report --study /s runs/mine", "report /r runs/mine", "status --as-json runs/mine", "demo"]
)
def test_relative_paths_behind_options_and_other_paths_are_refused(command):
    name, *arguments = command.split()
    with pytest.raises(ConfigError, match="all nodes share"):
        check_paths(load(name).read(arguments))


def test_photos_and_labels_of_a_run_are_looked_at():
    options = load("evaluate").read(["--run", "/r", "--photos", "photos", "--labels", "/labels.csv"])
    with pytest.raises(ConfigError, match=r"^--photos: photos is relative"):
        check_paths(options)


def test_paths_in_a_config_file_are_looked_at(tmp_path):
    (tmp_path / "mine.json").write_text('{"source": "photos", "out": "/o", "stages": ["16-64"]}')
    options = load("prepare").read(["--config", str(tmp_path / "mine.json")])
    with pytest.raises(ConfigError, match=r"^--source: photos is relative"):
        check_paths(options)


def test_names_numbers_and_buckets_are_no_relative_paths():
    options = load("evaluate").read(
        ["--outputs", "gan=s3://bucket/gan", "/a=b/c", "--references", "s3://b/r", "--out", "/o", "--schedule", "25"]
    )
    found = {(option.name, path) for option, path in paths_in(options)}
    assert found == {
        ("--outputs", "s3://bucket/gan"),
        ("--outputs", "/a=b/c"),
        ("--references", "s3://b/r"),
        ("--out", "/o"),
    }
    check_paths(options)
    check_paths(options_read("sample", "--schedule 250,best-25"))
    check_paths(options_read("study serve", "--database postgresql+psycopg://user@host/name"))


def test_a_path_of_this_machine_is_noted_and_a_bucket_is_not(tmp_path, caplog):
    with caplog.at_level("INFO"):
        check_paths(load("prepare").read(["--source", str(tmp_path), "--out", "s3://bucket/x", "--stages", "8-16"]))
    assert f"--source {tmp_path}" in caplog.text
    assert "is not uploaded" in caplog.text
    assert "s3://" not in caplog.text


def test_the_value_of_a_secret_variable_and_a_password_in_a_url_are_refused(monkeypatch):
    monkeypatch.setenv("HUB_TOKEN", "abcdefgh-123")
    with pytest.raises(ConfigError, match="HUB_TOKEN"):
        check_secrets(["--source", "/x?key=abcdefgh-123"])
    with pytest.raises(ConfigError, match="URL with a password"):
        check_secrets(["--source http://me:pw@host/x"])
