"""Ctrl-C at any moment: status 130, no traceback, and what is said to be kept is what is kept."""

import signal
import subprocess
from pathlib import Path

import pytest

from cluster.exits import INTERRUPTED
from tests.cluster.drive import good_places
from tests.commands import ROOT, clean_environment, sr3_command
from tests.once import once

RESUMED = "are kept; run the same command again to resume"
AGAIN = "interrupted; run the same command again"
TRAIN = "train --config {root}/train.json --data {root}/data --out {new}"
SEARCH = (
    "search --run {root}/run --stage 8-16 --num-steps 2 --num-trials 7 --num-images 4 --warm-starts --features seeded"
    " --confirm-split train"
)
MOMENTS = {
    "report, loading": ("report {root}/reported/demo", "loading …", AGAIN),
    "verify, loading": ("verify {root}/data", "loading …", AGAIN),
    "train, loading": (TRAIN, "loading …", f"interrupted; checkpoints {RESUMED}"),
    "train, while Ray starts": (TRAIN, "starting Ray on this machine", f"interrupted; checkpoints {RESUMED}"),
    "train, its stage": (f"{TRAIN} --address {{ray}}", "8-16: ", f"interrupted; checkpoints {RESUMED}"),
    "prepare, joining Ray": (
        "prepare --source {root}/photos --out {new} --stages 8-16 --address {ray}",
        "joining the Ray cluster",
        f"interrupted; finished shards {RESUMED}",
    ),
    "search, features": (f"{SEARCH} --address {{ray}}", "features to compare with: ", f"finished trials {RESUMED}"),
    "search, trials": (f"{SEARCH} --address {{ray}}", "trial 1/", f"finished trials {RESUMED}"),
    "search, confirmation": (f"{SEARCH} --address {{ray}}", "confirmation: ", f"finished trials {RESUMED}"),
    "study serve": ("study serve {root}/study --port 0", "administrator: ", f"interrupted; answers {RESUMED}"),
}
"""Moment -> a command, what it has said by then, and what it ends with."""


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> Path:
    return once(tmp_path_factory, "interrupted", lambda folder: good_places.make(folder, photos))


@pytest.mark.parametrize("moment", MOMENTS)
def test_an_interrupt_ends_a_command_with_130_and_a_line(moment, places, tmp_path, ray_session):
    words, state, ending = MOMENTS[moment]
    filled = words.format(root=places, new=tmp_path / "new", ray=ray_session)
    with subprocess.Popen(
        sr3_command(*filled.split()),
        env=clean_environment(),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as command:
        assert command.stdout is not None
        said = ""
        while state not in said:
            line = command.stdout.readline()
            assert line, f"it ended without {state!r}: {said}"
            said += line
        command.send_signal(signal.SIGINT)
        said += command.stdout.read()
    assert command.returncode == INTERRUPTED, said
    assert "Traceback" not in said
    assert said.rstrip().endswith(ending), said
