"""Working copies of runs in a bucket: what a machine downloads, and how often."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipelines.runs import bucket_runs
from pipelines.runs.bucket_runs import BucketRun
from pipelines.runs.run_folder import RESULTS
from pipelines.storage.uris import write_atomic
from tests.s3_server import FaultyProxy, S3Server, s3_variables

SMALL_FILES = ("config.json", "8-16/metrics.jsonl", "8-16/checkpoints/step-00000010/state.json")
OTHERS = ("8-16/checkpoints/step-00000010/model.safetensors", "samples/sr3/0001.png", "report.html")


@pytest.fixture
def run(s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[FaultyProxy, str]]:
    """A proxy in front of the server, and a run behind it that this machine has no working copy of."""
    monkeypatch.setattr(bucket_runs, "WORKING_COPIES", tmp_path)
    s3_server.create_bucket("runs")
    with s3_variables(AWS_MAX_ATTEMPTS="2"), FaultyProxy(s3_server.port) as proxy:
        query = f"?endpoint_override={proxy.endpoint}"
        for name in (*SMALL_FILES, *OTHERS):
            write_atomic(f"s3://runs/a/{name}{query}", name.encode())
        yield proxy, f"s3://runs/a{query}"


def test_eight_workers_of_a_machine_download_each_file_once_and_no_results(run: tuple[FaultyProxy, str]) -> None:
    proxy, uri = run
    gets: list[str] = []

    def noting(method: str, path: str) -> None:
        if method == "GET" and "list-type" not in path:
            gets.append(path.split("?")[0].removeprefix("/runs/a/"))

    proxy.fault = noting
    with ThreadPoolExecutor(8) as workers:
        list(workers.map(lambda _: BucketRun(uri).pull(without=RESULTS), range(8)))
    assert sorted(gets) == sorted(SMALL_FILES)
    folder = BucketRun(uri).folder
    assert all((folder / name).read_text() == name for name in SMALL_FILES)
    BucketRun(uri).pull()
    assert sorted(gets) == sorted((*SMALL_FILES, "samples/sr3/0001.png", "report.html"))
