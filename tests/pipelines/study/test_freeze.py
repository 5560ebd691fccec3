"""A frozen study: uniform files that contain only pixels; bad folders are refused before anything is written."""

import dataclasses
import json
import stat
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from pipelines.study.freeze import Folders, new_study
from pipelines.study.study_folder import Study, open_study
from sr3core.errors import ConfigError, DataError
from sr3core.images.pixels import to_float, to_uint8
from sr3core.images.resize import upsample_bicubic
from tests.study_subjects import make_folders, make_study, small_config


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> Study:
    """A study of eight photos, six of them in trials."""
    return make_study(tmp_path_factory.mktemp("frozen"), photos)


@pytest.fixture
def folders(tmp_path: Path, photos: Path) -> Folders:
    """Folders that a test may spoil."""
    return make_folders(tmp_path / "images", photos, 8)


def chunks_of(data: bytes) -> list[bytes]:
    """Types of a PNG's chunks."""
    found, offset = [], 8
    while offset < len(data):
        (length,) = struct.unpack(">I", data[offset : offset + 4])
        found.append(data[offset + 4 : offset + 8])
        offset += 12 + length
    return found


def test_all_files_are_of_one_length_and_hold_pixels_alone(study):
    files = sorted((study.path / "images").iterdir())
    assert len(files) == len(study.plan.checksums) > 6 * 4
    assert len({file.stat().st_size for file in files}) == 1
    for file in files:
        kinds = chunks_of(file.read_bytes())
        assert set(kinds) == {b"IHDR", b"IDAT", b"paDd", b"IEND"}
        with Image.open(file) as image:
            image.verify()  # checksums of all chunks


def test_names_say_nothing(study):
    names = [file.stem for file in (study.path / "images").iterdir()]
    assert all(len(name) == 32 and int(name, 16) >= 0 for name in names)
    known = {file for group in dataclasses.astuple(study.plan.pictures) for file in str(group).split("'")}
    assert {f"{name}.png" for name in names} <= known


def test_the_pixels_are_those_of_the_folders(study):
    root = study.path.parent / "images"
    for name in study.plan.images:
        pictures = study.plan.pictures
        pairs = {"references": pictures.originals[name], **{m: files[name] for m, files in pictures.outputs.items()}}
        for folder, file in pairs.items():
            with Image.open(root / folder / f"{name}.png") as source, Image.open(study.picture(file)) as shown:
                np.testing.assert_array_equal(np.asarray(source), np.asarray(shown))
        with Image.open(root / "inputs" / f"{name}.png") as source:
            x_up = to_uint8(upsample_bicubic(to_float(np.asarray(source)[None]), (32, 32)))[0]
        with Image.open(study.picture(pictures.inputs[name])) as shown:
            np.testing.assert_array_equal(np.asarray(shown), x_up)


def test_metadata_of_the_sources_is_gone(folders, tmp_path):
    for path in Path(folders.references).glob("*.png"):
        note = PngInfo()
        note.add_text("Comment", "this is the real one")
        with Image.open(path) as image:
            image.save(path, pnginfo=note, dpi=(300, 300))
    made = new_study(folders, small_config(), str(tmp_path / "study"))
    for file in (made.path / "images").iterdir():
        assert b"real one" not in file.read_bytes()
        assert b"pHYs" not in file.read_bytes()


def test_a_spoilt_copy_is_far_from_its_original(study):
    for name, file in study.plan.pictures.spoilt.items():
        with (
            Image.open(study.picture(file)) as spoilt,
            Image.open(study.picture(study.plan.pictures.originals[name])) as o,
        ):
            difference = np.asarray(spoilt, float) - np.asarray(o, float)
        assert np.sqrt((difference**2).mean()) > 25  # the models of these tests are within 20


def test_what_is_shown_where(study):
    for slot in study.plan.slots:
        for position, trial in enumerate(slot.trials):
            shown = study.files_of(slot, position)
            original = shown["first" if trial.original_first else "second"]
            other = shown["second" if trial.original_first else "first"]
            assert original == study.plan.pictures.originals[trial.image]
            pictures = study.plan.pictures
            spoilt = trial.kind != "trial"
            assert other == (pictures.spoilt if spoilt else pictures.outputs[slot.model])[trial.image]
            assert shown["input"] == pictures.inputs[trial.image]


def test_task_2_shows_no_input(photos, tmp_path):
    made = make_study(tmp_path, photos, task=2)
    assert made.plan.pictures.inputs == {}
    assert set(made.files_of(made.plan.slots[0], 0)) == {"first", "second"}
    assert made.config.question == "Which image would you guess is from a camera?"


def test_it_opens_again_as_it_was_and_secrets_are_for_the_owner_alone(study):
    assert open_study(study.path) == study
    assert stat.S_IMODE((study.path / "secrets.json").stat().st_mode) == 0o600
    assert study.secrets().admin not in (study.path / "study.json").read_text()
    study.verify()


def test_an_edited_study_or_image_is_refused(photos, tmp_path):
    made = make_study(tmp_path, photos)
    image = next((made.path / "images").iterdir())
    image.write_bytes(image.read_bytes()[:-1] + b"\0")
    with pytest.raises(DataError, match=f"{image.name} is missing or was changed"):
        made.verify()
    content = json.loads((made.path / "study.json").read_text())
    content["plan"]["config"]["exclusions"]["max_failed_checks"] = 4  # after the results were seen, say
    (made.path / "study.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match="was edited after it was frozen"):
        open_study(made.path)
    (made.path / "study.json").write_text(json.dumps(content | {"format_version": 9}))
    with pytest.raises(ConfigError, match="version 9, this program reads 'sr3-study' version 1"):
        open_study(made.path)
    with pytest.raises(DataError, match="is not a study"):
        open_study(tmp_path)


def _remove_an_output(folders: Folders) -> Folders:
    sorted(Path(folders.models["soft"]).iterdir())[0].unlink()
    return folders


def _shrink_an_output(folders: Folders) -> Folders:
    path = sorted(Path(folders.models["soft"]).iterdir())[0]
    Image.new("RGB", (16, 32)).save(path)
    return folders


def _enlarge_an_input(folders: Folders) -> Folders:
    path = sorted(Path(folders.inputs or "").iterdir())[0]
    Image.new("RGB", (64, 64)).save(path)
    return folders


def _damage_a_reference(folders: Folders) -> Folders:
    path = sorted(Path(folders.references).iterdir())[0]
    path.write_bytes(path.read_bytes()[:100])
    return folders


BAD = {
    "outputs that lack an image": (_remove_an_output, {}, DataError, "1 references have no image in soft"),
    "an output of another size": (_shrink_an_output, {}, DataError, "output of soft is 16x32, the reference 32x32"),
    "an input larger than its reference": (_enlarge_an_input, {}, DataError, "input is 64x64, larger than"),
    "a damaged reference": (_damage_a_reference, {}, DataError, ".png: "),
    "too few images": (
        lambda f: f,
        {"num_images": 9},
        ConfigError,
        "num_images: 9 were requested, but the folders hold 8; add `--num-images 8 --trials-per-subject ",
    ),
    "no image left for checks": (
        lambda f: f,
        {"num_images": 8, "trials_per_subject": 8},
        ConfigError,
        "--trials-per-subject 6`, or provide 2 more",
    ),
    "no model": (lambda f: dataclasses.replace(f, models={}), {}, ConfigError, "model: name at least one"),
    "no inputs for Task 1": (
        lambda f: dataclasses.replace(f, inputs=None),
        {},
        ConfigError,
        "name its folder with --inputs",
    ),
    "a folder that is not there": (
        lambda f: dataclasses.replace(f, references="nowhere"),
        {},
        DataError,
        "nowhere: no such file or folder",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_folders_are_refused_before_anything_is_written(case, folders, tmp_path):
    spoil, changes, error, message = BAD[case]
    config = small_config(**({"num_images": 8, "trials_per_subject": 4} | changes))
    with pytest.raises(error, match=message) as caught:
        new_study(spoil(folders), config, str(tmp_path / "out" / "study"))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_study_is_not_overwritten(study):
    folders = Folders(references="x", models={"m": "x"})
    with pytest.raises(ConfigError, match="already exists"):
        new_study(folders, small_config(), str(study.path))
