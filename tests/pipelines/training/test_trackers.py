"""Experiment trackers, where the extras are installed: what arrives is what metrics.jsonl says."""

import json
import re
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.runs.run_folder import Run, StageRun, create_run, data_fingerprints, read_metrics
from pipelines.settings.presets import small_stage
from pipelines.settings.train import RunConfig
from pipelines.training.parallel_stages import train_run
from pipelines.training.trackers import open_trackers
from sr3core.config import override
from tests.preparing import prepared
from tests.ray_head import free_port

BLOCK, WHOLE, LAST = 32768, 1, 4


@pytest.fixture(scope="module")
def data(tmp_path_factory, photos, ray_session):
    return prepared(photos, tmp_path_factory.mktemp("trackers"), 40, "8-16")


def trained(path: Path, data: str, tracker: str) -> StageRun:
    """A stage of ten steps whose metrics a tracker got, too."""
    stage = override(
        small_stage(8, 16, base_channels=8, num_steps=10, num_workers=1),
        **{"checkpoint_every": 10, "log_every": 5, "validation_every": 10, "placement__num_workers": 0},
        placement__trackers=(tracker,),
    )
    config = RunConfig(name="tracked", stages=(stage,))
    run: Run = create_run(path, config, data, data_fingerprints(data, config), fresh=False)
    assert [result.error for result in train_run(run)] == [None]
    return run.stages[0]


def expected(stage: StageRun, name: str) -> dict[int, float]:
    """Step -> number of metrics.jsonl."""
    kind, key = name.split("/")
    return {line["step"]: line[key] for line in read_metrics(stage.metrics) if line["kind"] == kind}


NAMES = ("train/loss", "train/images_per_second", "train/learning_rate", "train/gradient_norm", "train/data_wait")


def test_mlflow_has_the_metrics_and_the_run_again_after_a_resume(data, tmp_path, monkeypatch):
    import mlflow

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "sr3")
    stage = trained(tmp_path / "run", data, "mlflow")
    client = mlflow.MlflowClient()
    (run,) = client.search_runs([client.get_experiment_by_name("sr3").experiment_id])
    assert (run.info.run_name, run.info.status) == ("run/8-16", "FINISHED")
    for name in (*NAMES, "validation/loss"):
        history = {metric.step: metric.value for metric in client.get_metric_history(run.info.run_id, name)}
        assert history == expected(stage, name), name
    (sink,) = open_trackers(stage, resume_step=10)
    sink.log(15, {"train/loss": 0.25})
    sink.close()
    assert {m.step: m.value for m in client.get_metric_history(run.info.run_id, "train/loss")}[15] == 0.25
    assert len(client.search_runs([run.info.experiment_id])) == 1


def test_a_tracker_that_does_not_answer_costs_no_step(data, tmp_path, monkeypatch, caplog):
    """A server that refuses, and one that takes the connection and says nothing."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setattr("pipelines.training.trackers.CLOSE_SECONDS", 1.0)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        ports = {"refuses": free_port(), "silent": silent.getsockname()[1]}
        for name, port in ports.items():
            monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
            stage = trained(tmp_path / name, data, "mlflow")
            assert [line["step"] for line in read_metrics(stage.metrics) if line["kind"] == "train"] == [5, 10]
    warnings = [message for message in caplog.messages if "metrics.jsonl has everything" in message]
    assert re.match(r"8-16: mlflow failed: .*; training continues", warnings[0])
    assert warnings[-1].startswith("8-16: mlflow did not take all metrics within 1 s")


def test_weights_and_biases_has_the_metrics(data, tmp_path, monkeypatch):
    for name, value in {"WANDB_MODE": "offline", "WANDB_DIR": str(tmp_path), "WANDB_PROJECT": "sr3"}.items():
        monkeypatch.setenv(name, value)
    stage = trained(tmp_path / "run", data, "wandb")
    rows = offline_history(tmp_path)
    for name in (*NAMES, "validation/loss"):
        assert {row["_step"]: row[name] for row in rows if name in row} == expected(stage, name), name
    (first,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    open_trackers(stage, resume_step=10)[0].close()
    files = set(tmp_path.glob("wandb/offline-run-*/run-*.wandb"))
    assert {path.name for path in files} == {first.name}, "its identifier, and so its name, is the run's"


def offline_history(folder: Path) -> list[dict[str, Any]]:
    """What Weights & Biases would send: the history of the one run that it kept on the disk."""
    from wandb.proto.wandb_internal_pb2 import Record  # pyright: ignore[reportAttributeAccessIssue] - made at run time

    (path,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    rows = []
    for data in logged(path.read_bytes()):
        record = Record()
        record.ParseFromString(data)
        if record.WhichOneof("record_type") == "history":
            items = record.history.item
            rows.append({item.key or item.nested_key[0]: json.loads(item.value_json) for item in items})
    return rows


def logged(data: bytes) -> Iterator[bytes]:
    """The records of a LevelDB log, by its framing: blocks of 32 KiB, parts of sum, length, kind, content."""
    position, record = 7, b""  # after the file's own mark
    while position + 7 <= len(data):
        if 0 < -position % BLOCK < 7:  # too little for a part: zeros
            position += -position % BLOCK
            continue
        length, kind = struct.unpack_from("<HB", data, position + 4)
        record += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (WHOLE, LAST):
            yield record
            record = b""
