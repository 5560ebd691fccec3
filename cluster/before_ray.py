"""What is checked before Ray starts, is joined or gets a job: Ray itself says it late, never, or in lines of C++."""

import os
import socket
import tempfile

from sr3core.errors import Sr3Error, StorageError

PROBE_SECONDS = 5.0
"""Time within which a cluster's port answers."""
ANSWER_SECONDS = 15.0
"""Time within which a job server answers a request; a busy head takes its time."""
LONGEST_SOCKET = 107
"""Bytes of the longest name of a socket in Linux."""
_SESSION = "/session_2026-11-30_04-26-49_597192_4194304/sockets/plasma_store"
_MIN_BYTES = 1 << 20


def check_machine() -> None:
    """Check what a Ray of this machine needs: a folder for its files and sockets, and the loopback interface.

    Raises:
        StorageError: the folder cannot be written, or is on a full disk.
        Sr3Error: the folder's name is too long for sockets, or the loopback interface is down.
    """
    folder = ray_folder()
    longest = LONGEST_SOCKET - len(os.fsencode(_SESSION))
    if len(os.fsencode(folder)) > longest:
        raise Sr3Error(
            f"Ray keeps its sockets below {folder}, whose name is too long for that ({len(os.fsencode(folder))} bytes,"
            f" at most {longest}); run the same command again with a shorter one: `RAY_TMPDIR=/tmp sr3 …`"
        )
    from pipelines.storage.local_files import describe_error

    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(_MIN_BYTES))
    except OSError as error:
        raise StorageError(
            f"Ray keeps its files in {folder}, which cannot be written: {describe_error(error)}; another folder is"
            " taken with `RAY_TMPDIR=/FOLDER sr3 …`"
        ) from error
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            socket.create_connection(server.getsockname(), PROBE_SECONDS).close()
    except OSError as error:
        raise Sr3Error(
            f"this machine's loopback interface does not answer ({error.strerror or error}), and Ray's processes talk"
            " over it; bring it up with `ip link set lo up`"
        ) from error


def check_cluster(address: str) -> None:
    """Check that a gRPC server, as Ray's are, answers at an address to join: HOST:PORT, ray://HOST:PORT or auto.

    Raises:
        StorageError: nothing does, or another server; says how to go on.
    """
    where, remedy = address, "leave out --address to use a local Ray"
    if os.environ.get("RAY_ADDRESS") == address:
        where, remedy = f"{address} (RAY_ADDRESS)", "`unset RAY_ADDRESS` to use a local Ray"
    if address == "auto":
        current = os.path.join(ray_folder(), "ray_current_cluster")
        if not os.path.isfile(current):
            return  # Ray searches the processes of this machine, and says at once that it finds none
        with open(current, encoding="utf-8", errors="replace") as file:
            address = file.read().strip()
        where = f"{address}, the last cluster of this machine by {current}"
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        raise StorageError(f"{where}: not a cluster's address; give HOST:6379, ray://HOST:10001 or http://HOST:8265")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), PROBE_SECONDS) as connection:
            speaks = os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true") or _speaks_http_2(connection)
    except (OSError, OverflowError) as error:
        raise StorageError(
            f"no Ray cluster answers at {where}: {getattr(error, 'strerror', None) or error}; start one"
            f" (`ray start --head`), or {remedy}"
        ) from error
    if not speaks:
        raise StorageError(
            f"a server answers at {where}, but none of a Ray cluster; `ray start --head` prints the address to join,"
            f" and http://HOST:8265 gets a job. Or {remedy}"
        )


def _speaks_http_2(connection: socket.socket) -> bool:
    """Whether the other end is a server of HTTP/2, as gRPC's are: each begins with a frame of settings."""
    connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0")
    return connection.recv(9)[3:4] == b"\4"


def probe_job_server(address: str) -> None:
    """Check that the server at an http:// or https:// address is a job server of Ray. Whether it takes our token is not
    checked.

    Raises:
        StorageError: nothing answers there in time, or something else does.
    """
    import requests

    where = f"{address} (RAY_ADDRESS)" if os.environ.get("RAY_ADDRESS") == address else address
    try:
        answer = requests.get(f"{address}/api/version", timeout=(PROBE_SECONDS, ANSWER_SECONDS))
    except requests.RequestException as error:
        raise StorageError(
            f"no job server answers at {where}: {_cause_of(error)}; is the head up, and its port 8265 forwarded (`ray"
            " dashboard cluster/aws.yaml`, `kubectl port-forward service/sr3-head-svc 8265`)?"
        ) from error
    if answer.status_code in (401, 403):
        return
    try:
        is_ray = "ray_version" in answer.json()
    except (ValueError, TypeError):
        is_ray = False
    if not is_ray:
        raise StorageError(
            f"{where} answers, but not as a job server of Ray (status {answer.status_code} for /api/version); give the"
            " address of the head's dashboard, such as http://HOST:8265"
        )


def _cause_of(error: BaseException) -> str:
    """The innermost reason of an error of requests, without the objects that its text names."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__


def ray_folder() -> str:
    """Where Ray keeps its sessions."""
    return os.path.join(os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp", "ray")
