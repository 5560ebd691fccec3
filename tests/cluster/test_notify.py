"""`--notify`: what a real HTTP server is told when a command ends, fails or is stopped."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

from cluster.cli import main
from cluster.notify import VARIABLE, run_and_notify
from cluster.stopping import Terminated
from sr3core.errors import ConfigError, DataError
from tests.loopback import LoopbackServer, answer


class Hook:
    """What it was told, and how it answers."""

    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []
        self.statuses: list[int] = []
        self.url = ""

    def respond(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers["Content-Length"]))
        self.told.append({"path": handler.path, **json.loads(body)})
        answer(handler, b"ok", self.statuses.pop(0) if self.statuses else 200)


@pytest.fixture
def hook() -> Iterator[Hook]:
    found = Hook()
    with LoopbackServer(found.respond) as server:
        found.url = f"{server.endpoint}/services/secret"
        yield found


def fail(error: BaseException) -> Any:
    raise error


def test_an_ending_is_told(hook):
    assert run_and_notify(hook.url, "train", lambda: 0) == 0
    (told,) = hook.told
    assert (told["command"], told["state"], told["error"], told["path"]) == ("train", "done", None, "/services/secret")
    assert told["text"].startswith("sr3 train: done after 0:00 on ")


@pytest.mark.parametrize(
    ("error", "state", "why"),
    [
        (DataError("the shards are gone\nand more"), "failed", "the shards are gone"),
        (ZeroDivisionError("of our own"), "failed", "ZeroDivisionError: of our own"),
        (KeyboardInterrupt(), "stopped", "interrupted"),
        (Terminated(), "stopped", "interrupted"),
    ],
)
def test_a_failure_is_told_and_passed_on(hook, error, state, why):
    with pytest.raises(type(error)):
        run_and_notify(hook.url, "prepare", lambda: fail(error))
    (told,) = hook.told
    assert (told["state"], told["error"]) == (state, why)


def test_a_command_that_fails_by_its_exit_status_is_told_too(hook):
    assert run_and_notify(hook.url, "train", lambda: 1) == 1
    assert (hook.told[0]["state"], hook.told[0]["error"]) == ("failed", "exit status 1")


def test_a_hook_is_told_again_if_it_did_not_take_it_and_changes_nothing(hook, caplog):
    hook.statuses = [503]
    assert run_and_notify(hook.url, "train", lambda: 0) == 0
    assert len(hook.told) == 2
    hook.statuses = [500, 500]
    assert run_and_notify(hook.url, "train", lambda: 0) == 0
    assert "was not told how the command ended (status 500)" in caplog.text
    assert "secret" not in caplog.text


def test_a_hook_that_is_not_there_changes_nothing(caplog):
    assert run_and_notify("http://127.0.0.1:1/secret", "train", lambda: 0) == 0
    assert "was not told" in caplog.text
    assert "secret" not in caplog.text


def test_what_is_no_address_is_refused_before_the_work():
    with pytest.raises(ConfigError, match="http://"):
        run_and_notify("hooks.example.org/x", "train", lambda: fail(AssertionError("it ran")))


def test_a_command_takes_it_as_an_option_or_from_the_environment(hook, tmp_path, monkeypatch):
    absent = str(tmp_path / "absent")
    command = ["prepare", "--source", absent, "--out", str(tmp_path / "out"), "--stages", "16-64"]
    assert main([*command, "--notify", hook.url]) == 1
    monkeypatch.setenv(VARIABLE, hook.url)
    assert main(command) == 1
    assert [told["command"] for told in hook.told] == ["prepare", "prepare"]
    assert all(absent in told["error"] for told in hook.told)
