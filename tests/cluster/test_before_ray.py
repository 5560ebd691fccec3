"""What a Ray needs is checked before it starts, and a cluster's address before it is joined."""

import socket
import threading

import pytest

from cluster import before_ray
from cluster.before_ray import check_cluster, check_machine, probe_job_server
from sr3core.errors import Sr3Error, StorageError
from tests.loopback import LoopbackServer, answer


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


@pytest.mark.parametrize(
    "answer", [b"\0\1garbage\r\n\r\n", b"SSH-2.0-OpenSSH_9.6\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n", b""]
)
def test_a_server_that_is_none_of_ray_is_told(answer):
    """As that of the dashboard's port, which Ray would try to join for minutes."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(100)
                connection.sendall(answer)

        threading.Thread(target=serve).start()
        with pytest.raises(StorageError, match=r"a server answers at .*, but none of a Ray cluster; .* Or leave out"):
            check_cluster(f"127.0.0.1:{server.getsockname()[1]}")


def test_a_cluster_passes(ray_session):
    check_cluster(ray_session)


def web_server(body: bytes, status: int = 200) -> LoopbackServer:
    """A web server that answers everything alike."""
    return LoopbackServer(lambda handler: answer(handler, body, status))


@pytest.mark.parametrize(
    ("body", "status"), [(b"<html>", 200), (b"<html>", 404), (b'{"version": 2}', 200), (b"[]", 200), (b"7", 500)]
)
def test_another_web_server_is_no_job_server(body, status):
    said = rf"answers, but not as a job server of Ray \(status {status} for"
    with (
        web_server(body, status) as server,
        pytest.raises(StorageError, match=f"{server.endpoint} {said}"),
    ):
        probe_job_server(server.endpoint)


@pytest.mark.parametrize(("body", "status"), [(b'{"ray_version": "2.60.0"}', 200), (b"Unauthorized", 401)])
def test_a_job_server_passes_whether_or_not_it_wants_a_token(body, status):
    asked = []

    def respond(handler):
        asked.append(handler.path)
        answer(handler, body, status)

    with LoopbackServer(respond) as server:
        probe_job_server(server.endpoint)
    assert asked == ["/api/version"]


@pytest.mark.parametrize(
    "address",
    ["http://", "http://[::1:8265", "http://127.0.0.1:99999", "http://a b"],
)
def test_an_address_that_leads_nowhere_is_told(address):
    with pytest.raises(StorageError, match=r"no job server answers at .*; is the head up, and its port 8265 forwarded"):
        probe_job_server(address)


def test_a_stale_job_server_in_the_environment_is_named(closed_port, monkeypatch):
    address = f"http://127.0.0.1:{closed_port}"
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(StorageError, match=rf"no job server answers at {address} \(RAY_ADDRESS\): Connection refused"):
        probe_job_server(address)


def test_a_server_that_takes_the_connection_and_is_silent_is_given_up(monkeypatch):
    monkeypatch.setattr(before_ray, "ANSWER_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(StorageError, match=r"no job server answers at .*: timed out"):
            probe_job_server(address)


def test_a_ray_without_a_dashboard_names_no_port_at_which_another_one_may_answer(ray_session):
    """Ray Train would ask that one whether its controller lives."""
    from ray._private.ray_constants import DASHBOARD_ADDRESS, KV_NAMESPACE_DASHBOARD
    from ray.experimental.internal_kv import _internal_kv_get

    recorded = _internal_kv_get(DASHBOARD_ADDRESS, namespace=KV_NAMESPACE_DASHBOARD).decode()
    host, port = recorded.rsplit(":", 1)
    assert port != "8265"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)), 1).close()
