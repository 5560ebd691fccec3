"""What a Ray needs is checked before it starts, and a cluster's address before it is joined."""

import socket

import pytest

from cluster.before_ray import check_cluster, check_machine
from sr3core.errors import Sr3Error, StorageError


@pytest.fixture
def closed_port() -> int:
    """A port at which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.parametrize("variable", ["TMPDIR", "RAY_TMPDIR"])
def test_a_folder_whose_name_is_too_long_for_sockets_is_named(tmp_path, monkeypatch, variable):
    """As Slurm's and macOS's are."""
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv(variable, str(tmp_path / ("job-" + "x" * 60)))
    with pytest.raises(Sr3Error, match=r"/ray, whose name is too long .*`RAY_TMPDIR=/tmp sr3 …`"):
        check_machine()
    assert not any(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_named(monkeypatch):
    monkeypatch.setenv("RAY_TMPDIR", "/proc")
    with pytest.raises(StorageError, match=r"Ray keeps its files in /proc/ray, which cannot be written: .*RAY_TMPDIR"):
        check_machine()


def test_a_machine_where_ray_can_start_passes(monkeypatch):
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", "/tmp")
    check_machine()


def test_an_address_that_nobody_answers_at_is_told_at_once(closed_port, monkeypatch):
    address = f"127.0.0.1:{closed_port}"
    for where in (address, f"ray://{address}"):
        with pytest.raises(StorageError, match=r"no Ray cluster answers at .*refused; .*leave out --address"):
            check_cluster(where)
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(StorageError, match=r"\(RAY_ADDRESS\): .*`unset RAY_ADDRESS`"):
        check_cluster(address)


def test_the_file_of_a_cluster_that_has_ended_is_named(closed_port, tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text(f"127.0.0.1:{closed_port}")
    with pytest.raises(StorageError, match=r"the last cluster of this machine by .*ray_current_cluster: .*refused"):
        check_cluster("auto")


@pytest.mark.parametrize("address", ["somewhere", "host:port", ":6379"])
def test_what_is_no_address_is_told(address):
    with pytest.raises(StorageError, match=r"not a cluster's address; give HOST:6379"):
        check_cluster(address)


def test_a_cluster_that_listens_passes():
    with socket.create_server(("127.0.0.1", 0)) as server:
        check_cluster(f"127.0.0.1:{server.getsockname()[1]}")
