"""Images that end the process that decodes them are named, and all shards are finished, or named where they cannot."""

import json
import os
import signal
from pathlib import Path

from pipelines.prepare.finished.verify import verify
from pipelines.shards.manifest import load_manifest
from sr3core.config import to_dict
from tests.commands import ROOT
from tests.faults.interrupted_preparations import DRIVER, Driver, Pipe, config_for, data_of
from tests.poison import KINDS, lay_plugin, poison
from tests.processes import wait_for


def test_poison_is_named_and_everything_else_is_prepared(source: Path, tmp_path: Path) -> None:
    folder = tmp_path / "source"
    folder.mkdir()
    for path in source.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    for kind in KINDS:
        (folder / f"{kind}.ppm").write_bytes(poison(kind))
    paths = os.pathsep.join([str(lay_plugin(tmp_path / "plugin")), str(ROOT)])
    outs = [tmp_path / name for name in ("out", "another", "apart")]
    with Driver(tmp_path, DRIVER, "local", variables={"PYTHONPATH": paths}) as driver:
        for out, changes in zip(outs, ({}, {"num_workers": 1}, {"samples_per_shard": 1}), strict=True):
            answer = driver.prepare(config_for(folder, out, image_seconds=5.0, **changes))
            assert "error" not in answer, answer
            manifest = load_manifest(f"{out}/8-16")
            crashed = {reject.path: reject.detail for reject in manifest.rejects if reject.reason == "crashed"}
            assert crashed == {f"{kind}.ppm": detail for kind, detail in KINDS.items()}
            assert sum(map(manifest.num_samples, manifest.splits)) == len(list(source.iterdir()))
            assert verify(str(out)) == []
    assert data_of(outs[0]) == data_of(outs[1])


def test_a_shard_whose_processes_die_for_another_reason_is_given_up_by_name(
    piped: tuple[Path, Pipe], tmp_path: Path, expected: dict[str, bytes], ray_session: str
) -> None:
    folder, pipe = piped
    config = config_for(folder, tmp_path / "out")
    with Driver(tmp_path, DRIVER, ray_session, str(pipe.path)) as driver:
        driver.tell(json.dumps(to_dict(config)))
        for _ in range(4):
            worker = pipe.reader()
            os.kill(worker, signal.SIGKILL)
            wait_for(lambda worker=worker: not Path(f"/proc/{worker}").exists())
        answer = driver.answer()
        assert answer["kind"] == "StorageError"
        assert "1 of" in answer["error"]
        assert ".tar: the process that writes it died 4 times" in answer["error"]
        pipe.heal()
        assert driver.prepare(config) == {"written": 1}
    assert data_of(tmp_path / "out") == expected
