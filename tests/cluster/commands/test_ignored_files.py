"""Every command that reads folders of images says which of their files it ignores, in the same words."""

from pathlib import Path

import pytest

from cluster.cli import main
from tests.pipelines.prepare.source_files import picture, write

LINE = "ignored: 1 hidden ('{0}/.x.png'); 1 not_an_image_name ('{0}/notes.txt')"
OTHERS = {".x.png": b"", "notes.txt": b"", "a.png": picture(0), "b.png": picture(1)}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Two images and two other files, and a relative name for their folder."""
    write(tmp_path / "in", OTHERS)
    monkeypatch.chdir(tmp_path)
    return "in"


def test_prepare(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prepare", "--source", folder, "--out", "out", "--stages", "4-8", "--dry-run"]) == 0
    assert LINE.replace("{0}/", "") in capsys.readouterr().out.splitlines()


def test_evaluate(folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "ours", {"a.png": picture(0), "b.png": picture(1), "deep/c.png": b""})
    command = ["evaluate", "--outputs", "ours", "--references", folder, "--out", "numbers.json", "--dry-run"]
    for options in ([], ["--unpaired"], ["--inputs", folder]):
        assert main([*command, *options]) == 0
        printed = capsys.readouterr().out
        assert "'in/.x.png'" in printed
        assert "1 subfolder ('ours/deep/')" in printed


def test_study_new(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["study", "new", "--task", "2", "--references", folder, "--model", f"m={folder}", "--out", "study"]
    few = ["--num-images", "2", "--trials-per-subject", "2", "--subjects-per-model", "2"]
    assert main([*command, *few, "--num-attention-checks", "0", "--num-practice-trials", "0", "--dry-run"]) == 0
    assert "2 hidden ('in/.x.png', 'in/.x.png')" in capsys.readouterr().out
