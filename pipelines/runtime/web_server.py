"""A web server for one application: it listens, says so, and runs until interrupted."""

import socket
from collections.abc import Callable
from typing import Any

import uvicorn

from sr3core.errors import StorageError


def listen(host: str, port: int) -> socket.socket:
    """A socket that is bound to an address; port 0 picks a free one.

    Raises:
        StorageError: the address cannot be listened on.
    """
    listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise StorageError(
            f"port: cannot listen on {host}:{port}: {error.strerror or error}; choose another --port"
        ) from error
    return listening


def address_of(host: str, listening: socket.socket) -> str:
    """`http://HOST:PORT` of a bound socket."""
    return f"http://{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}"


def run_app(app: Any, listening: socket.socket, on_listening: Callable[[], None], **options: Any) -> None:
    """Serve an ASGI application until interrupted.

    Args:
        app: the application.
        listening: where.
        on_listening: called once connections are accepted: before that, a browser's would be refused.
        options: more of uvicorn's.
    """
    config = uvicorn.Config(
        app,
        access_log=False,  # it would contain network addresses
        log_config=None,
        log_level="warning",
        server_header=False,
        **options,
    )
    server = _Server(config)
    server.announce = on_listening
    server.run(sockets=[listening])


class _Server(uvicorn.Server):
    announce: Callable[[], None]

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self.announce()
