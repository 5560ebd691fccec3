"""What a submitted command uploads and publishes, without a cluster: nothing here reaches the network."""

import json
import subprocess

import pytest

from cluster.cli import main
from cluster.remote import submit
from cluster.remote.addresses import check_job_server, take_target
from cluster.remote.job_rules import check_secrets
from cluster.remote.submit import copy_tracked, runtime_env, staged
from sr3core.errors import ConfigError

NOWHERE = "http://127.0.0.1:1"


@pytest.fixture
def checkout(tmp_path):
    """A git checkout with code, and with what must never leave the machine."""
    folder = tmp_path / "checkout"
    for name, content in {
        "code/main.py": "print('hello')",
        ".gitignore": "/runs/\n*.keep\n",
        "tracked.keep": "tracked although ignored",
        "runs/mine/config.json": "{}",
        "photos/a.jpg": "jpeg",
        ".venv/lib/x.py": "x",
        "secret.env": "TOKEN=1",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    git = ["git", "-C", str(folder), "-c", "user.name=t", "-c", "user.email=t@t"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "add", "-f", "code", ".gitignore", "tracked.keep"], check=True)
    return folder


def test_only_tracked_files_are_uploaded_as_they_are_now(checkout):
    (checkout / "code" / "main.py").write_text("print('changed since')")
    with staged(str(checkout), {"source": "/x"}) as folder:
        assert folder is not None
        names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
        assert names == {"code/main.py", "tracked.keep", submit.CONFIG_NAME}
        assert (folder / "code" / "main.py").read_text() == "print('changed since')"
        assert json.loads((folder / submit.CONFIG_NAME).read_text()) == {"source": "/x"}
    assert not folder.exists()


def test_a_large_checkout_is_refused_with_its_largest_files(checkout, tmp_path, monkeypatch):
    monkeypatch.setattr(submit, "MAX_UPLOAD_BYTES", 20)
    with pytest.raises(ConfigError, match=r"largest: tracked\.keep"):
        copy_tracked(checkout, tmp_path / "to")


def test_a_folder_that_git_does_not_know_is_refused(tmp_path):
    (tmp_path / "plain").mkdir()
    with pytest.raises(ConfigError, match="not a git checkout"):
        copy_tracked(tmp_path / "plain", tmp_path / "to")


def test_without_working_dir_and_config_nothing_is_uploaded():
    with staged(None, None) as folder:
        assert folder is None
        assert "working_dir" not in runtime_env(folder, None)


def test_no_variable_of_this_machine_travels(monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "very-secret-key")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "very-secret-token")
    assert "very-secret" not in json.dumps(runtime_env(None, "."))


def test_a_secret_in_a_command_is_refused_without_repeating_it(monkeypatch, capsys):
    monkeypatch.setenv("HUB_TOKEN", "abcdefgh-123")
    assert main(["--address", NOWHERE, "prepare", "--source", "/x?key=abcdefgh-123", "--out", "/y"]) == 2
    captured = capsys.readouterr()
    assert "HUB_TOKEN" in captured.err
    assert "abcdefgh-123" not in captured.err + captured.out
    with pytest.raises(ConfigError, match="URL with a password"):
        check_secrets(["--source http://me:pw@host/x"])


def test_a_password_in_the_address_is_refused():
    with pytest.raises(ConfigError, match="RAY_AUTH_TOKEN"):
        check_job_server("http://me:pw@host:8265")
    with pytest.raises(ConfigError, match="not a job server"):
        check_job_server("ray://host:10001")


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("train demo --data /x --out /y --12-24.optimizer.learning-rat 1", "learning-rate"),
        ("ablate small-16-64 --data /x --out /y --num-sedes 2", "num-seeds"),
        ("evaluate --run /x --form-noise 9", "from-noise"),
        ("sample --run /x --out /y --num-imgaes 9", "num-images"),
        ("upscale /x --run /y --out /z --fromat jpeg", "format"),
    ],
)
def test_a_wrong_option_is_told_before_any_job(capsys, command, told):
    with pytest.raises(SystemExit) as end:
        main(["--address", NOWHERE, *command.split()])
    assert end.value.code == 2
    assert told in capsys.readouterr().err


def test_no_server_is_a_failure_with_a_remedy(capsys):
    assert main(["jobs", "--address", NOWHERE]) == 1
    assert "no job server answers at http://127.0.0.1:1" in capsys.readouterr().err


def test_the_address_is_found_before_and_after_the_command(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    for arguments in (
        ["--address", "http://h:1", "train", "demo"],
        ["train", "--address=http://h:1", "demo"],
        ["train", "demo", "--address", "http://h:1"],
    ):
        target, rest = take_target(arguments)
        assert (target.address, rest, target.is_job_server) == ("http://h:1", ["train", "demo"], True)
    monkeypatch.setenv("RAY_ADDRESS", "http://h:2")
    assert take_target(["train", "demo"])[0].is_job_server
    target, _ = take_target(["train", "demo", "--address", "local"])
    assert not target.is_job_server, "--address overrules RAY_ADDRESS"
    assert target.as_option() == ["--address", "local"]


def test_the_address_of_another_command_behind_dashes_is_its_own():
    target, rest = take_target(["schedule", "--name", "x", "--", "train", "demo", "--address", "http://h:1"])
    assert target.address is None
    assert rest[-2:] == ["--address", "http://h:1"]
    target, rest = take_target(["--address", "http://h:2", "schedule", "--", "train", "--address", "http://h:1"])
    assert (target.address, rest[-1]) == ("http://h:2", "http://h:1")


def test_an_address_without_a_value_is_refused(capsys):
    assert main(["train", "demo", "--address"]) == 2
    assert "--address: needs a value" in capsys.readouterr().err


def test_job_options_without_a_job_server_are_refused(capsys, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert main(["--detach", "train", "demo", "--data", "/x", "--out", "/y"]) == 2
    assert "name a job server too" in capsys.readouterr().err
