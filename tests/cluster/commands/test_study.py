"""`sr3 study` on the command line: a study from folders to results, and one clear message for each mistake."""

import json
from pathlib import Path

import pytest

from cluster.cli import main
from pipelines.study.config import StudyConfig
from pipelines.study.freeze import Folders
from sr3core.config import from_dict
from tests.study_subjects import Subject, command, make_folders, running

SMALL = [
    "--task",
    "1",
    "--num-images",
    "6",
    "--subjects-per-model",
    "2",
    "--trials-per-subject",
    "4",
    "--viewing-seconds",
    "0.05",
    "--num-attention-checks",
    "1",
    "--num-practice-trials",
    "1",
    "--exclusions.max-same-side",
    "1",
]


@pytest.fixture
def folders(tmp_path: Path, photos: Path) -> Folders:
    """Folders of eight photos and two models."""
    return make_folders(tmp_path / "images", photos, 8)


def named(folders: Folders) -> list[str]:
    return ["--references", folders.references, "--inputs", str(folders.inputs)]


@pytest.mark.parametrize("together", [True, False])
def test_from_folders_to_results(folders, tmp_path, capsys, together):
    models = [f"{name}={folder}" for name, folder in folders.models.items()]
    given = ["--model", *models] if together else [word for model in models for word in ("--model", model)]
    out = tmp_path / "study"
    assert main(["study", "new", *named(folders), *given, *SMALL, "--out", str(out), "--dry-run"]) == 0
    assert "would create" in capsys.readouterr().out
    assert not out.exists()
    assert main(["study", "new", *named(folders), *given, *SMALL, "--out", str(out)]) == 0
    assert "4 places" in capsys.readouterr().out
    assert main(["study", "serve", str(out), "--dry-run"]) == 0
    with running(command(out)) as server:
        for number in range(4):
            subject = Subject(server.address, f"p{number}")
            subject.begin()
            assert subject.finish(lambda shown: ("first", "second")[shown["position"] % 2])["state"] == "done"
    assert main(["study", "results", str(out), "--num-replicates", "200"]) == 0
    text = capsys.readouterr().out
    assert "95% interval" in text
    assert "bicubic minus soft" in text
    assert json.loads((out / "results.json").read_text())["tasks"][0]["num_answers"] == 16


def test_a_printed_configuration_is_read_back(folders, tmp_path, capsys):
    models = [f"--model=a={folders.models['soft']}"]
    start = ["study", "new", *named(folders), *models, "--out", str(tmp_path / "study")]
    assert main([*start, *SMALL, "--print-config"]) == 0
    printed = capsys.readouterr().out
    assert from_dict(StudyConfig, json.loads(printed)).trials_per_subject == 4
    (tmp_path / "study.json").write_text(printed)
    assert main([*start, "--config", str(tmp_path / "study.json"), "--print-config"]) == 0
    assert capsys.readouterr().out == printed


def test_each_mistake_is_one_clear_message(folders, tmp_path, capsys):
    out = ["--out", str(tmp_path / "study")]
    soft = ["--model", f"soft={folders.models['soft']}"]
    cases = {
        ("study",): "name one of new, serve, results",
        ("study", "serv"): "did you mean 'serve'?",
        ("study", "new", *named(folders), *SMALL, *out): "model: name at least one, as --model NAME=DIR",
        ("study", "new", *named(folders), "--model", "x", *SMALL, *out): "'x' is not NAME=DIR",
        ("study", "new", *named(folders), *soft, *soft, *SMALL, *out): "the name 'soft' is there twice",
        ("study", "new", *named(folders)[:2], *soft, *SMALL, *out): "name its folder with --inputs",
        (
            "study",
            "new",
            *named(folders),
            *soft,
            *SMALL,
            *out,
            "--num-images",
            "99",
        ): "99 were requested, but the folders hold 8",
        ("study", "serve", str(tmp_path)): "is not a study (no study.json)",
        ("study", "results", str(tmp_path)): "is not a study (no study.json)",
    }
    for arguments, message in cases.items():
        assert main(list(arguments)) in (1, 2), arguments
        error = capsys.readouterr().err
        assert message in error, arguments
        assert len([line for line in error.strip().splitlines() if not line.endswith("loading …")]) == 1
    assert not (tmp_path / "study").exists()


def test_help_of_every_verb(capsys):
    assert main(["study", "--help"]) == 0
    assert "sr3 study new --help" in capsys.readouterr().out
    for verb in ("new", "serve", "results"):
        with pytest.raises(SystemExit) as end:
            main(["study", verb, "--help"])
        assert end.value.code == 0
        assert "--help" in capsys.readouterr().out
