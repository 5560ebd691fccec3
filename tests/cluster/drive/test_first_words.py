"""What a command says before it loads anything: that it loads, or what its options lack."""

import subprocess
import sys

import pytest

from cluster.catalog import COMMANDS
from cluster.cli import main
from cluster.exits import USAGE_ERROR
from tests.cluster.drive.commands import CALLS, place_options
from tests.commands import ROOT, clean_environment

WITH_A_CONFIG = [name for name in COMMANDS if any(option.name == "--config" for option in place_options(name))]


def test_every_command_is_driven():
    """A new one gets its calls in tests/cluster/drive/commands.py."""
    assert set(CALLS) == set(COMMANDS)


@pytest.mark.parametrize("words", [("--config",), ("--config", "--dry-run"), ("--config=",)])
@pytest.mark.parametrize("command", WITH_A_CONFIG)
def test_a_config_option_without_a_file_is_missed(command, words, capsys):
    assert main([*command.split(), *words]) == USAGE_ERROR
    assert "--config: needs a value, the JSON file; write --config FILE" in capsys.readouterr().err


FIRST_WORDS = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name in ("torch", "ray", "matplotlib", "pyarrow"):
            raise ImportError(f"import of {name}")
sys.meta_path.insert(0, Missing())
from cluster.cli import main
try:
    main(sys.argv[1:])
except SystemExit:
    pass
"""
"""A command in a Python that has nothing heavy: it says something before it misses that."""


@pytest.mark.parametrize("call", [(name, *arguments) for name in CALLS for arguments in CALLS[name]])
def test_every_command_says_something_before_it_loads_anything_heavy(call, tmp_path):
    name, *arguments = call
    filled = [argument.format(root=tmp_path, busy_port=1, closed_port=1) for argument in arguments]
    (tmp_path / "train.json").write_text("{}")
    done = subprocess.run(
        [sys.executable, "-c", FIRST_WORDS, *name.split(), *filled],
        env=clean_environment(RAY_ADDRESS="127.0.0.1:1"),
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    said = done.stdout + done.stderr
    if "import of" in said:
        assert said.startswith(f"sr3 {name}: loading …\n")
