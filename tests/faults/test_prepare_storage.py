"""A preparation with a failing bucket, and one with a full disk: the same bytes, or a clear message."""

from pathlib import Path

import pytest

from pipelines.shards.manifest import load_manifest
from tests.faults.interrupted_preparations import DRIVER, Driver, config_for, data_of, picture
from tests.processes import can_mount, wait_for
from tests.s3_server import FaultyProxy, S3Server


def test_s3_that_answers_503_cuts_connections_and_fails_uploads(
    source: Path, tmp_path: Path, expected: dict[str, bytes], s3_server: S3Server, ray_session: str
) -> None:
    client = s3_server.client()
    s3_server.create_bucket("faulty")
    for path in source.iterdir():
        client.put_object(Bucket="faulty", Key=f"in/some where/{path.name}", Body=path.read_bytes())

    def stored(prefix: str) -> dict[str, bytes]:
        keys = [item["Key"] for item in client.list_objects_v2(Bucket="faulty", Prefix=prefix).get("Contents", [])]
        return {key[len(prefix) :]: client.get_object(Bucket="faulty", Key=key)["Body"].read() for key in keys}

    with (
        FaultyProxy(s3_server.port) as proxy,
        Driver(tmp_path, DRIVER, ray_session, variables={"AWS_MAX_ATTEMPTS": "4"}) as driver,
    ):

        def uri(path: str) -> str:
            return f"s3://faulty/{path}?endpoint_override={proxy.endpoint}"

        _weather_faults(proxy, driver, uri, stored, expected)
        _fail_uploads(proxy, driver, client, uri, stored)
    assert any(name.endswith(".tar") for name in expected), "there was something to be equal to"


def _weather_faults(proxy, driver, uri, stored, expected) -> None:
    """Every ninth request is refused and every third download breaks off: the result is the same."""
    requests = iter(range(10**6))
    downloads = iter(range(10**6))

    def fault(method: str, path: str) -> str | None:
        if next(requests) % 9 == 8:
            return "503"
        return "cut" if method == "GET" and ".png" in path and next(downloads) % 3 == 0 else None

    proxy.fault = fault
    answer = driver.prepare(config_for(uri("in/some where"), uri("out")))
    assert "error" not in answer, answer
    assert proxy.counts["503"] > 5
    assert proxy.counts["cut"] > 5
    found = {name: data for name, data in stored("out/").items() if "/" in name and "manifest" not in name}
    assert found == expected


def _fail_uploads(proxy, driver, client, uri, stored) -> None:
    """A multipart upload whose parts fail leaves no object and no part; afterwards the same command resumes."""
    for seed in range(6):  # noise of 1024x1024 is 4 MB an image: the shard goes up in parts
        client.put_object(Bucket="faulty", Key=f"large/{seed}.png", Body=picture(seed, 1024))
    parts = iter(range(10**6))
    proxy.fault = lambda method, path: "500" if "partNumber=2" in path and next(parts) >= 0 else None
    changes = {"stages": ("512-1024",), "validation_fraction": 0.0, "samples_per_shard": 6}
    config = config_for(uri("large"), uri("big"), **changes)
    answer = driver.prepare(config)
    assert answer["kind"] == "StorageError", answer
    assert "train-000000.tar" in answer["error"]
    assert next(parts) > 0, "the upload was not in parts"
    assert not [name for name in stored("big/") if name.startswith("512-1024/")]
    assert not client.list_multipart_uploads(Bucket="faulty").get("Uploads")
    proxy.fault = lambda method, path: None
    assert driver.prepare(config) == {"written": 1}
    assert {"512-1024/train-000000.tar", "512-1024/manifest.json"} <= stored("big/").keys()


@pytest.mark.skipif(not can_mount(), reason="needs a private mount, which this system does not allow")
def test_a_full_disk(source: Path, tmp_path: Path, expected: dict[str, bytes]) -> None:
    """In a mount namespace of its own, with a disk of 96 KiB that is enlarged later."""
    (tmp_path / "disk").mkdir()
    script = f"""
        mount -t tmpfs -o size=96k tmpfs "{tmp_path}/disk" || exit 9
        mkfifo "{tmp_path}/enlarge"
        (cat "{tmp_path}/enlarge"; mount -o remount,size=64m "{tmp_path}/disk";
         cp -r "{tmp_path}/disk" "{tmp_path}/first"
         echo > "{tmp_path}/enlarged") > /dev/null 2>&1 &
        "$0" "$@"
        cp -r "{tmp_path}/disk/out" "{tmp_path}/copy"
    """
    within = ("unshare", "-Urm", "sh", "-c", script)
    with Driver(tmp_path, DRIVER, "local", within=within) as driver:
        config = config_for(source, tmp_path / "disk" / "out")
        answer = driver.prepare(config)
        assert answer.get("kind") == "StorageError", answer
        assert "No space left on device" in answer["error"]
        (tmp_path / "enlarge").write_text("")
        wait_for((tmp_path / "enlarged").exists)
        finished = data_of(tmp_path / "first" / "out")
        assert not [name for name in finished if name.endswith(".tmp")]
        for name, data in finished.items():
            assert expected[name] == data, f"{name} is not whole"
        assert "error" not in driver.prepare(config)
    assert driver.process.returncode == 0
    assert data_of(tmp_path / "copy") == expected
    assert all(load_manifest(str(tmp_path / "copy" / stage)) for stage in ("8-16", "16-32"))
