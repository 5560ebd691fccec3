"""Every command that writes into a folder refuses one that is in use, or a file, before anything starts."""

import pytest

from cluster.cli import main
from cluster.exits import FAILURE, USAGE_ERROR
from pipelines.runs.run_folder import create_run
from pipelines.settings.presets import preset
from pipelines.storage.leases.folder_lease import LEASES
from tests.pipelines.storage.leases.rivals import at_work
from tests.reporting import measured


@pytest.mark.parametrize(
    ("command", "work"),
    [
        ("prepare --source {photos} --out {place} --stages 8-16", ("preparing",)),
        ("demo --out {place}", ("demo",)),
        ("upscale {photos} --run {run} --out {place}", ("upscaling",)),
        ("sample --run {run} --out {place} --num-images 3 --first 7", ("sampling", "7-9")),
        ("search --run {run} --stage 8-16", ("searching", "8-16")),
        ("evaluate --run {run}", ("evaluating",)),
    ],
)
@pytest.mark.parametrize("rehearsal", [(), ("--dry-run",)])
def test_every_command_refuses_a_folder_in_use_before_anything_starts(
    command, work, rehearsal, tmp_path, photos, capsys
):
    place, run = tmp_path / "out", tmp_path / "run"
    folder = str(place) if "{place}" in command else str(run)
    arguments = command.format(photos=photos, place=place, run=run).split()
    with at_work(folder, *work) as holder:
        assert main([*arguments, *rehearsal]) == FAILURE
        assert f"{folder} is in use by process {holder.pid} on" in capsys.readouterr().err
        holder.kill()
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and LEASES not in path.parts]


@pytest.mark.parametrize(
    "command",
    [
        "prepare --source {photos} --out {file} --stages 8-16",
        "demo --out {file}",
        "upscale {photos} --run {run} --out {file}",
        "sample --run {run} --out {file}",
    ],
)
@pytest.mark.parametrize("rehearsal", [(), ("--dry-run",)])
def test_an_out_that_is_a_file_is_refused_before_anything_starts(command, rehearsal, tmp_path, photos, capsys):
    file = tmp_path / "file"
    file.write_text("")
    assert main([*command.format(photos=photos, file=file, run=tmp_path / "run").split(), *rehearsal]) == USAGE_ERROR
    assert f"{file} is a file; choose a folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "option"),
    [
        ("sample --run {run} --out {out} --grid {folder}", "grid"),
        ("verify {run} --contact-sheet {folder}", "contact-sheet"),
    ],
)
def test_a_picture_cannot_be_written_to_a_folder_which_is_said_first(command, option, tmp_path, capsys):
    (tmp_path / "folder").mkdir()
    places = {name: tmp_path / name for name in ("run", "out", "folder")}
    create_run(places["run"], measured(preset("small-cascade")), "data", {}, fresh=False)
    rehearsal = ["--dry-run"] if command.startswith("sample") else []
    assert main([*command.format(**places).split(), *rehearsal]) == USAGE_ERROR
    assert f"{option}: {tmp_path / 'folder'} is a folder; name a .png file" in capsys.readouterr().err
