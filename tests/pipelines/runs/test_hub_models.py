"""Models on the hub: its own client against a server that answers its protocol.

Each call is a process of its own, since the client reads its environment when it is imported.
"""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.remote.job_rules import check_path
from pipelines.runs.shipped_models import shipped_folder
from pipelines.storage.uris import absolute
from sr3core.errors import StorageError
from tests.commands import ROOT, clean_environment, run_sr3
from tests.hub_server import TOKEN, HubServer

OPEN = """
import sys
from pipelines.runs.run_folder import open_run
from sr3core.errors import Sr3Error
try:
    run = open_run(sys.argv[1])
except Sr3Error as error:
    sys.exit(f"{type(error).__name__}: {error}")
print(run.location, sorted(str(p.relative_to(run.path)) for p in run.path.rglob("*") if p.is_file()))
"""
UPLOAD = """
import sys
from pipelines.registry.hub_upload import check_upload, upload_model
from sr3core.errors import Sr3Error
try:
    check_upload(sys.argv[1], sys.argv[2])
    print(upload_model(sys.argv[1], sys.argv[2]))
except Sr3Error as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""

UPSCALE = """
import sys
import numpy as np
from pipelines.photo_model import load_model
print(load_model(sys.argv[1]).upscale(np.zeros((6, 5, 3), np.uint8)).shape)
"""


@pytest.fixture(scope="module")
def hub() -> Iterator[HubServer]:
    with HubServer() as server:
        yield server


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The model in the box, as a folder of ours."""
    shutil.copytree(shipped_folder("builtin://photos-4x"), tmp_path / "model")
    return tmp_path / "model"


def _files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _run(script: str, *arguments: object, **environment: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.run(
        command, cwd=ROOT, env=clean_environment() | environment, capture_output=True, text=True, check=False
    )


def _failure(script: str, *arguments: object, **environment: str) -> str:
    done = _run(script, *arguments, **environment)
    assert done.returncode == 1, done.stdout + done.stderr
    assert TOKEN not in done.stdout + done.stderr, "a token is in no message"
    assert "Traceback" not in done.stderr
    return done.stderr.splitlines()[-1]


def test_a_model_is_uploaded_and_downloaded_once(hub: HubServer, model: Path, tmp_path: Path) -> None:
    sent = _run(UPLOAD, model, "org/photos", **hub.environment(tmp_path / "a"))
    assert sent.returncode == 0, sent.stderr
    (commit,) = hub.commits["org/photos"]
    assert sent.stdout.splitlines()[-1] == f"hf:org/photos@{commit}"
    assert hub.commits["org/photos"][commit] == _files(model)
    environment = hub.environment(tmp_path / "b")
    got = _run(OPEN, "hf:org/photos", **environment)
    assert got.returncode == 0, got.stderr
    assert got.stdout.strip() == f"hf:org/photos@{commit} {sorted(_files(model))}", "and its location is that commit"
    before = hub.file_requests()
    assert _run(OPEN, f"hf:org/photos@{commit}", **environment).stdout == got.stdout
    assert _run(OPEN, "hf:org/photos", **environment, HF_HUB_OFFLINE="1").stdout == got.stdout
    assert hub.file_requests() == before, "what is in the cache is not asked for again"


def test_an_export_is_uploaded_and_upscales(hub: HubServer, tmp_path: Path) -> None:
    environment = clean_environment() | hub.environment(tmp_path / "cache")
    words = ("export", "builtin://photos-4x", "--out", str(tmp_path / "out"), "--upload", "org/exported")
    done = run_sr3(*words, environment=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    (commit,) = hub.commits["org/exported"]
    assert f"sr3 upscale PHOTOS --run hf:org/exported@{commit} --out large" in done.stdout
    made = _run(UPSCALE, "hf:org/exported", **hub.environment(tmp_path / "cache"))
    assert made.stdout.strip() == "(24, 20, 3)", made.stderr


def test_what_the_hub_does_not_have_is_a_line(hub: HubServer, model: Path, tmp_path: Path) -> None:
    hub.commit("org/there", _files(model))
    hub.commit("org/other", {"config.json": b'{"architectures": ["UNet2DModel"]}', "model.safetensors": b"x" * 100})
    environment = hub.environment(tmp_path)
    missing = _failure(OPEN, "hf:org/nowhere", **environment)
    assert missing.startswith(f"DataError: hf:org/nowhere: there is no such model at {hub.endpoint}, or it is private")
    revision = _failure(OPEN, "hf:org/there@v9", **environment)
    assert "hf:org/there@v9: there is no such revision; name a branch" in revision
    other = _failure(OPEN, "hf:org/other", **environment)
    assert "hf:org/other is no model of this program; name one that `sr3 export` wrote" in other
    assert not any("model.safetensors" in path and "other" in path for _, path in hub.requests), (
        "its weights stay there"
    )
    assert "'there' is no name on the hub; write ORG/NAME" in _failure(OPEN, "hf:there", **environment)


def test_without_a_token_nothing_is_uploaded(hub: HubServer, model: Path, tmp_path: Path) -> None:
    said = _failure(UPLOAD, model, "org/mine", **hub.environment(tmp_path, token=None))
    assert "hf:org/mine: " in said
    assert "hf auth login" in said
    wrong = _failure(UPLOAD, model, "org/mine", **hub.environment(tmp_path, token="hf_wrong"))
    assert "hf auth login" in wrong
    assert "hf_wrong" not in wrong
    assert "org/mine" not in hub.commits
    assert "in a bucket; export into a folder on this machine" in _failure(UPLOAD, "s3://bucket/model", "org/mine")


def test_a_hub_that_is_away_or_fails_is_a_line(model: Path, tmp_path: Path) -> None:
    with HubServer() as server:
        away = server.environment(tmp_path / "cache")
    said = _failure(OPEN, "hf:org/photos", **away)
    assert said.startswith(
        f"StorageError: hf:org/photos: {away['HF_ENDPOINT']} cannot be reached, and the model is not"
    )
    offline = _failure(OPEN, "hf:org/photos", **away, HF_HUB_OFFLINE="1")
    assert "cannot be reached, and the model is not in the hub's cache; connect, or copy a model folder" in offline


def test_without_the_extra_its_installation_is_named(tmp_path: Path) -> None:
    (tmp_path / "huggingface_hub.py").write_text("raise ModuleNotFoundError(name='huggingface_hub')")
    said = _failure(OPEN, "hf:org/photos", PYTHONPATH=str(tmp_path))
    assert said == "ConfigError: models on the hub: huggingface_hub is missing; pip install 'sr3-on-ray[hub]'"


def test_models_on_the_hub_are_only_read() -> None:
    with pytest.raises(StorageError, match="org/photos is only read; `sr3 export hf:org/photos --out DIR` makes"):
        absolute("hf:org/photos")


def test_a_job_may_name_a_model_on_the_hub() -> None:
    check_path("--run", "hf:org/photos")
