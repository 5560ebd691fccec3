"""`sr3 sample`: numbered images from noise, the same however they are drawn, and nothing drawn twice."""

import csv
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import ray
import torch
from PIL import Image

from cluster.cli import main
from pipelines.runs.run_folder import create_run
from pipelines.sampling.generate import sample_images
from pipelines.settings.inference import InferenceConfig
from pipelines.settings.presets import small_stage
from pipelines.settings.sample import SampleConfig, parse_classes
from pipelines.settings.train import RunConfig
from sr3core.checkpoint import save_checkpoint, take_snapshot
from sr3core.config import override
from sr3core.diffusion.schedules import default_schedule
from sr3core.errors import ConfigError
from sr3core.hyperparameters import SamplerConfig
from sr3core.randomness import keyed_generator
from sr3core.training import create_state
from tests.processes import kill, session_name, wait_for, workers_of

CONFIG = SampleConfig(num_images=6, schedule="3,2", batch=2)
NUM_CLASSES = 3


def save_moved(stage, model=None):
    """A checkpoint of weights that are random and nowhere zero."""
    state = create_state(model or stage.model, override(stage.config.optimizer, ema_decay=0.0), seed=0)
    with torch.no_grad():
        for index, parameter in enumerate(state.model.parameters()):
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=keyed_generator(0, stage.name, index)))
    save_checkpoint(stage.checkpoints, take_snapshot(state), {})


def make_run(path, sizes=((None, 8), (8, 16)), num_classes: int | None = NUM_CLASSES, data="data"):
    stages = [small_stage(*size, base_channels=8, num_steps=1, num_workers=0) for size in sizes]
    if num_classes is not None:
        stages[0] = override(stages[0], model__unet__num_classes=num_classes)
    config = RunConfig(name="tiny", stages=tuple(stages))
    run = create_run(path, config, data, {stage.data_stage: "x" for stage in stages}, fresh=False)
    for stage in run.stages:
        save_moved(stage)
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("generate") / "run")


@pytest.fixture(scope="module")
def six(run, tmp_path_factory, ray_session):
    """Six images and their grid, drawn by the command."""
    out = tmp_path_factory.mktemp("six")
    arguments = ["--run", str(run.path), "--out", str(out / "images"), "--num-images", "6", "--schedule", "3,2"]
    assert main(["sample", *arguments, "--batch", "4", "--grid", str(out / "grid.png")]) == 0
    return out / "images"


def pixels(folder):
    return {path.name: np.asarray(Image.open(path)).astype(int) for path in sorted(Path(folder).glob("*.png"))}


def assert_same(images, others):
    """Whether images are equal, except for the rounding of another batch size."""
    assert images.keys() == others.keys()
    for name, image in images.items():
        assert np.abs(image - others[name]).max() <= 1, name


def test_images_are_numbered_whole_labelled_and_different(six):
    images = pixels(six)
    assert list(images) == [f"{number:06d}.png" for number in range(6)]
    assert {image.shape for image in images.values()} == {(16, 16, 3)}
    assert len({image.tobytes() for image in images.values()}) == 6
    with (six / "labels.csv").open() as file:
        header, *rows = csv.reader(file)
    assert header == ["file", "class"]
    assert rows == [[name, str(number % NUM_CLASSES)] for number, name in enumerate(images)]
    grid = np.asarray(Image.open(six.parent / "grid.png"))
    assert grid.shape == (2 * 16, NUM_CLASSES * 16, 3)  # a column a class
    np.testing.assert_array_equal(grid[16:, 16:32], images["000004.png"])


def test_an_image_does_not_depend_on_batch_actors_or_what_else_is_drawn(run, six, tmp_path):
    sample_images(str(run.path), str(tmp_path / "a"), replace(CONFIG, batch=1, num_actors=2))
    assert_same(pixels(tmp_path / "a"), pixels(six))
    sample_images(str(run.path), str(tmp_path / "b"), replace(CONFIG, first=4, num_images=2))
    assert_same(pixels(tmp_path / "b"), {name: six_ for name, six_ in pixels(six).items() if name > "000003.png"})


def test_only_what_is_missing_is_drawn_and_leftovers_go(run, six, tmp_path, capsys):
    out = tmp_path / "out"
    sample_images(str(run.path), str(out), replace(CONFIG, num_images=3))
    before = {path.name: path.stat().st_mtime_ns for path in out.glob("*.png")}
    (out / "000001.png").unlink()
    (out / ".0123abcd-000001.png.tmp").write_bytes(b"half an im")
    arguments = ["--run", str(run.path), "--out", str(out), "--num-images", "6", "--schedule", "3,2"]
    assert main(["sample", *arguments, "--dry-run"]) == 0
    assert "would generate 4 of 6 images by base-8 (3 steps) -> 8-16 (2 steps)" in capsys.readouterr().out
    assert main(["sample", *arguments]) == 0
    assert "4 of 6 images generated" in capsys.readouterr().out
    assert_same(pixels(out), pixels(six))
    assert {path.name for path in out.iterdir()} == {*pixels(six), "labels.csv", "samples.json"}
    for name in ("000000.png", "000002.png"):
        assert (out / name).stat().st_mtime_ns == before[name]


def test_seed_class_and_number_each_make_another_image(run, six, tmp_path):
    sample_images(str(run.path), str(tmp_path / "seed"), replace(CONFIG, num_images=1, seed=1))
    sample_images(str(run.path), str(tmp_path / "class"), replace(CONFIG, num_images=1, classes="2"))
    images = [pixels(six)["000000.png"], pixels(six)["000003.png"]]  # 0 and 3 are of one class
    images += [pixels(tmp_path / name)["000000.png"] for name in ("seed", "class")]
    assert len({image.tobytes() for image in images}) == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 1}, "seed: 0 -> 1"),
        ({"classes": "0-1"}, r"classes: \[0, 1, 2\] -> \[0, 1\]"),
        ({"schedule": "3"}, "8-16_schedule"),
        ({"inference": InferenceConfig(precision="bfloat16")}, "precision: 'tf32' -> 'bfloat16'"),
    ],
)
def test_images_of_other_settings_are_not_mixed(run, six, changes, message):
    with pytest.raises(ConfigError, match=f"holds images made with other settings: .*{message}.*choose another --out"):
        sample_images(str(run.path), str(six), replace(CONFIG, **changes))


def test_a_folder_of_somebody_elses_numbered_images_is_left_alone(run, tmp_path):
    (tmp_path / "000000.png").write_bytes(b"mine")
    with pytest.raises(ConfigError, match="that `sr3 sample` did not draw"):
        sample_images(str(run.path), str(tmp_path), CONFIG)
    assert [path.name for path in tmp_path.iterdir()] == ["000000.png"]


MISTAKES = {
    "--classes 0-3": "classes: 3 is not in 0..2, which base-8 was trained on",
    "--classes 2-1": "classes: '2-1' is neither a class nor a range",
    "--schedule 3,2,1": "names 3, but the run has 2 stages: base-8, 8-16",
    "--schedule 3000": "3000",
    "--num-images 0": "num_images: 0 is not positive",
}
"""Options of `sr3 sample`, and what is said of them."""

SAMPLE_ALL = """
# argv: options of `sr3 sample`, and more of them for each call. Ray's own module would be imported first of all that
# computes.
import sys
from cluster.cli import main
for options in sys.argv[2:]:
    try:
        status = main(["sample", *sys.argv[1].split(), *options.split()])
    except SystemExit as end:
        status = end.code
    print("ENDED", status, "ray" in sys.modules, file=sys.stderr, flush=True)
"""


def test_mistakes_are_told_before_ray_starts(run, tmp_path):
    always = f"--run {run.path} --out {tmp_path / 'out'} --dry-run"
    command = [sys.executable, "-c", SAMPLE_ALL, always, *MISTAKES]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    *calls, rest = done.stderr.split("ENDED 2 False\n")
    assert rest == ""
    for said, message in zip(calls, MISTAKES.values(), strict=True):
        assert message in " ".join(said.replace("│", " ").split())
    assert not (tmp_path / "out").exists()


def refusal(run, tmp_path, capsys, *options):
    status = main(["sample", "--run", str(run.path), "--out", str(tmp_path / "out"), *options])
    assert not (tmp_path / "out").exists()
    return status, capsys.readouterr().err


def test_a_run_that_has_no_base_model(tmp_path, capsys):
    status, message = refusal(make_run(tmp_path / "run", ((8, 16),), None), tmp_path, capsys)
    assert status == 2
    assert "has no base model, so it cannot draw images from noise" in message


def test_stages_whose_sizes_do_not_chain(tmp_path, capsys):
    status, message = refusal(make_run(tmp_path / "run", ((None, 8), (8, 16), (32, 64))), tmp_path, capsys)
    assert status == 2
    assert "stage 8-16 ends at 16 pixels, but 32-64 starts at 32" in message


def test_classes_for_a_model_without(tmp_path, capsys):
    run = make_run(tmp_path / "run", num_classes=None)
    assert refusal(run, tmp_path, capsys, "--classes", "0") == (
        2,
        "sr3 sample: loading …\nsr3 sample: classes: base-8 was trained without classes; omit them\n",
    )


def test_weights_of_another_architecture(tmp_path, capsys):
    run = make_run(tmp_path / "run")
    save_moved(run.stages[1], override(run.stages[1].model, unet__base_channels=12))
    status, message = refusal(run, tmp_path, capsys)
    assert status == 1
    assert "does not fit the model" in message


def test_schedules_that_the_base_model_cannot_use(tmp_path, capsys):
    run = make_run(tmp_path / "run", num_classes=None)
    base = run.stages[0]
    for name, sampler in (("guided", SamplerConfig(guidance=1.0)), ("projected", SamplerConfig(project=1))):
        base.schedules.mkdir(exist_ok=True)
        (base.schedules / f"{name}.json").write_text(default_schedule(base.model.noise_schedule, 2, sampler).to_json())
    assert "guidance: base-8 has no classes" in refusal(run, tmp_path, capsys, "--schedule", "guided,2")[1]
    assert "project: base-8 has no low-res" in refusal(run, tmp_path, capsys, "--schedule", "projected,2")[1]


def test_classes_are_read_in_their_order():
    assert parse_classes("3,0-2, 207") == (3, 0, 1, 2, 207)
    for wrong in ("", "a", "1-", "-1", "1,,2"):
        with pytest.raises(ConfigError, match="neither a class nor a range"):
            parse_classes(wrong)


LONG = replace(CONFIG, num_images=8, schedule="20,20", batch=1)


def images_after(out, number):
    """Wait until this many complete images exist."""
    return wait_for(lambda: [p for p in out.glob("0*.png") if Image.open(p).size == (16, 16)][number - 1 :])


def test_a_killed_command_leaves_whole_images_and_the_next_one_draws_the_rest(run, tmp_path, ray_session):
    out = tmp_path / "out"
    arguments = ["--run", str(run.path), "--out", str(out), "--num-images", "8", "--schedule", "20,20", "--batch", "1"]
    address = ["--address", ray.get_runtime_context().gcs_address]
    command = [sys.executable, "-m", "cluster", "sample", *arguments, *address]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    images_after(out, 2)
    child.kill()
    child.wait()
    there = {path.name: path.read_bytes() for path in out.glob("0*.png")}
    assert 2 <= len(there) < 8
    assert len(sample_images(str(run.path), str(out), LONG).todo) <= 8 - len(there)
    assert list(pixels(out)) == [f"{number:06d}.png" for number in range(8)]
    assert {name: (out / name).read_bytes() for name in there} == there


def test_a_killed_actor_is_replaced(run, tmp_path, ray_session):
    out = tmp_path / "out"
    with ThreadPoolExecutor() as pool:
        drawing = pool.submit(sample_images, str(run.path), str(out), LONG)
        images_after(out, 2)
        actors = workers_of(session_name(), "ray::Drawer")
        assert actors
        for actor in actors:
            kill(actor)
        assert len(list(out.glob("0*.png"))) < 8
        drawing.result()
    assert list(pixels(out)) == [f"{number:06d}.png" for number in range(8)]
