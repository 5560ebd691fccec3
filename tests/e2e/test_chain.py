"""The whole chain through the command line on real photos, small: each part's result is what the next one reads."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cluster.cli import main
from pipelines.runs.run_folder import open_run, read_metrics
from sr3core.diffusion.schedules import schedule_from_json
from tests.preparing import some_photos

TINY = [
    *("--8-16.num-steps", "60", "--16-32.num-steps", "60", "--8-32-regression.num-steps", "60"),
    *("--8-16.validation-every", "30", "--16-32.validation-every", "30", "--8-32-regression.validation-every", "30"),
]


@pytest.fixture(scope="module")
def chain(tmp_path_factory, photos, ray_session):
    """A folder with photos, one of them corrupt, shards, and a trained run of two stages and a baseline."""
    folder = tmp_path_factory.mktemp("chain")
    chosen = some_photos(photos, folder / "photos", 150)
    (chosen / "broken.jpg").write_bytes(min(chosen.iterdir()).read_bytes()[:700])
    source = ["--source", str(folder / "photos"), "--out", str(folder / "data"), "--stages", "8-16,16-32,8-32"]
    split = ["--validation-fraction", "0.2", "--test-fraction", "0.2", "--samples-per-shard", "32"]
    assert main(["prepare", *source, *split]) == 0
    (folder / "tiny.json").write_text(json.dumps(tiny_run()))
    arguments = ["--config", str(folder / "tiny.json"), "--data", str(folder / "data"), "--out", str(folder / "run")]
    assert main(["train", *arguments, *TINY]) == 0
    return folder


def tiny_run():
    """A run of the demo's shape and a tenth of its size: one stage on Ray Train's workers, two in this process."""
    from pipelines.settings.presets import regression_of, small_stage
    from pipelines.settings.train import RunConfig
    from sr3core.config import override, to_dict

    stages = [
        small_stage(8, 16, base_channels=8, num_steps=60, num_workers=0),
        small_stage(16, 32, base_channels=8, num_steps=60, num_workers=2),
        regression_of(small_stage(8, 32, base_channels=8, num_steps=60, num_workers=0), learning_rate=1e-3),
    ]
    # An average over 10 steps, since there are only 60.
    stages = [override(stage, num_validation_images=16, optimizer__ema_decay=0.9) for stage in stages]
    return to_dict(RunConfig(name="tiny", stages=tuple(stages)))


def test_the_corrupt_photo_is_named_and_the_rest_prepared(chain):
    rejects = [json.loads(line) for line in (chain / "data" / "8-16" / "rejects.jsonl").read_text().splitlines()]
    assert [Path(row["path"]).name for row in rejects] == ["broken.jpg"]
    manifest = json.loads((chain / "data" / "8-16" / "manifest.json").read_text())
    assert sum(shard["num_samples"] for split in manifest["splits"].values() for shard in split) == 150


def test_every_stage_is_trained_and_learns(chain):
    for stage in open_run(chain / "run").stages:
        assert stage.weights.newest().step > 0
        held_out = [line["loss"] for line in read_metrics(stage.metrics) if line["kind"] == "validation"]
        # An untrained SR3 network knows nothing; an untrained regression is bicubic already, and hard to beat at once.
        share = 0.9 if stage.config.model.kind == "sr3" else 0.97
        assert held_out[-1] < share * held_out[0], stage.name


def test_training_again_does_nothing_again(chain, capsys):
    before = {path: path.stat().st_mtime_ns for path in (chain / "run").rglob("*") if path.name == "state.json"}
    arguments = ["--config", str(chain / "tiny.json"), "--data", str(chain / "data"), "--out", str(chain / "run")]
    assert main(["train", *arguments, *TINY]) == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert before
    assert "8-16: step 60, done" in capsys.readouterr().out


def test_another_configuration_in_the_same_folder_is_refused_with_the_difference(chain, capsys):
    arguments = ["--config", str(chain / "tiny.json"), "--data", str(chain / "data"), "--out", str(chain / "run")]
    assert main(["train", *arguments, *TINY, "--8-16.optimizer.learning-rate", "5e-4"]) == 2
    message = capsys.readouterr().err
    assert (
        "different configuration: stages.8-16.optimizer.learning_rate: 0.002 -> 0.0005. Choose another --out" in message
    )


@pytest.fixture(scope="module")
def searched(chain):
    arguments = ["--num-steps", "4", "--num-trials", "9", "--num-images", "16", "--features", "seeded"]
    assert main(["search", "--run", str(chain / "run"), "--stage", "8-16", *arguments]) == 0
    return chain


def test_the_search_leaves_a_schedule_that_upscale_takes(searched):
    path = searched / "run" / "8-16" / "schedules" / "best-4.json"
    schedule = schedule_from_json(path.read_text(), str(path))
    assert schedule.num_evaluations in (3, 4)  # heun's two a step make an odd number
    run = open_run(searched / "run").stage("8-16")
    chosen = run.schedule()
    assert chosen is not None
    assert chosen.gammas == schedule.gammas
    (found,) = (searched / "run" / "8-16" / "search").glob("*/search.json")
    report = json.loads(found.read_text())
    done = [trial for trial in report["trials"] if trial["status"] == "done"]
    assert len(done) == 9
    best = next(trial for trial in done if trial["name"] == report["best"])
    assert best["objective"] == min(trial["objective"] for trial in done)
    assert not report["is_fid"]
    assert "FID" not in report["label"].replace("not FID", "")


def test_photos_of_any_size_and_format_are_upscaled_and_what_is_none_is_named(searched, capsys):
    folder = searched / "mine"
    folder.mkdir(exist_ok=True)
    generator = np.random.default_rng(0)
    photo = Image.fromarray(generator.integers(0, 256, (21, 13, 3), dtype=np.uint8))
    photo.save(folder / "odd.jpg")
    photo.convert("L").save(folder / "grey.png")
    photo.convert("RGBA").save(folder / "alpha.webp")
    (folder / "text.png").write_text("this is no image")
    arguments = [str(folder), "--run", str(searched / "run"), "--out", str(searched / "up"), "--schedule", "3"]
    assert main(["upscale", *arguments]) == 1
    output = capsys.readouterr().out
    assert "3 of 4 images upscaled" in output
    assert "text.png" in output
    for name in ("odd", "grey", "alpha"):
        assert Image.open(searched / "up" / f"{name}.png").size == (52, 84)
    times = {path.name: path.stat().st_mtime_ns for path in (searched / "up").iterdir()}
    assert main(["upscale", *arguments]) == 1
    assert {path.name: path.stat().st_mtime_ns for path in (searched / "up").iterdir()} == times


@pytest.fixture(scope="module")
def evaluated(searched):
    assert main(["evaluate", "--run", str(searched / "run"), "--schedule", "3", "--limit", "12"]) == 0
    return json.loads((searched / "run" / "evaluation.json").read_text())


def test_the_evaluation_compares_all_methods_on_the_test_split(evaluated, searched):
    assert evaluated["split"] == "test"
    assert evaluated["num_images"] == 12
    methods = {method["name"]: method for method in evaluated["methods"]}
    assert list(methods) == ["nearest", "bicubic", "8-32-regression", "sr3"]
    for method in methods.values():
        assert 5 < method["psnr"]["mean"] < 60
        assert 0 < method["ssim"]["mean"] < 1
        assert method["distance"]["mean"] > 0
        assert method["consistency"]["mean"] > 0
        assert {"kid", "precision", "recall"} <= method.keys()
        for metric in ("psnr", "ssim", "consistency", "distance"):
            assert method[metric]["low"] <= method[metric]["mean"] <= method[metric]["high"]
    # SR3 draws several samples of the first inputs; every method's difference from it is paired.
    assert methods["sr3"]["pixel_diversity"]["mean"] > 0
    assert methods["sr3"]["pixel_diversity"]["n"] == 8
    gap = evaluated["differences"]["8-32-regression"]
    assert gap["than"] == "sr3"
    assert gap["psnr"]["mean"] == pytest.approx(
        methods["8-32-regression"]["psnr"]["mean"] - methods["sr3"]["psnr"]["mean"]
    )
    # Nearest repeats the input's pixels.
    key = evaluated["keys"][0]
    low, nearest = (np.asarray(Image.open(searched / "run" / "samples" / n / f"{key}.png")) for n in ("low", "nearest"))
    np.testing.assert_array_equal(nearest, low.repeat(4, axis=0).repeat(4, axis=1))
    # Bicubic is known in closed form: what the evaluation says of it must be what one computes by hand.
    samples = searched / "run" / "samples"
    errors = []
    for path in sorted((samples / "reference").iterdir()):
        reference = np.asarray(Image.open(path)).astype(float)
        bicubic = np.asarray(Image.open(samples / "bicubic" / path.name)).astype(float)
        errors.append(10 * np.log10(255**2 / np.mean((reference - bicubic) ** 2)))
    assert methods["bicubic"]["psnr"]["mean"] == pytest.approx(np.mean(errors), rel=1e-9)


def test_lost_samples_alone_are_made_again_and_the_same(evaluated, searched):
    samples = searched / "run" / "samples"
    lost = [samples / "sr3" / f"{evaluated['keys'][3]}.png", samples / "sr3-2" / f"{evaluated['keys'][0]}.png"]
    kept = samples / "reference" / lost[0].name
    before = [path.read_bytes() for path in lost]
    inode = kept.stat().st_ino
    for path in lost:
        path.unlink()
    (searched / "run" / "evaluation.json").unlink()
    assert main(["evaluate", "--run", str(searched / "run"), "--schedule", "3", "--limit", "12"]) == 0
    assert [path.read_bytes() for path in lost] == before
    assert kept.stat().st_ino == inode
    again = json.loads((searched / "run" / "evaluation.json").read_text())
    assert again["methods"] == evaluated["methods"]


def test_any_two_folders_can_be_compared(evaluated, searched, capsys):
    samples = searched / "run" / "samples"
    out = searched / "folder.json"
    arguments = ["--outputs", str(samples / "bicubic"), "--references", str(samples / "reference"), "--out", str(out)]
    assert main(["evaluate", *arguments, "--inputs", str(samples / "low")]) == 0
    (method,) = json.loads(out.read_text())["methods"]
    by_run = next(m for m in evaluated["methods"] if m["name"] == "bicubic")
    for metric in ("psnr", "ssim", "consistency", "distance"):
        assert method[metric]["mean"] == pytest.approx(by_run[metric]["mean"], rel=1e-6)
    first = sorted((samples / "bicubic").iterdir())[0]
    lost = searched / "lost"
    lost.mkdir(exist_ok=True)
    (lost / first.name).write_bytes(first.read_bytes())
    arguments[1] = str(lost)
    assert main(["evaluate", *arguments]) == 1
    assert "11 references have no image in lost" in capsys.readouterr().err


def test_the_report_is_one_file_that_names_its_distance_honestly(evaluated, searched):
    assert main(["report", str(searched / "run")]) == 0
    html = (searched / "run" / "report.html").read_text()
    assert "data:image/png" in html
    assert evaluated["distance"]["label"] in html


def test_status_tells_of_the_run_and_of_the_preparation(searched, capsys):
    assert main(["status", str(searched / "run")]) == 0
    output = capsys.readouterr().out
    assert "8-16: done, step 60/60" in output
    assert re.search(r"learning rate \S+, gradient norm \S+, data wait \S+%\s+memory \S+ GB, 1 worker", output)
    assert "best-4" in output
    assert main(["verify", str(searched / "data")]) == 0
    sheet = searched / "sheet.png"
    assert main(["verify", str(searched / "data" / "16-32"), "--contact-sheet", str(sheet)]) == 0
    assert Image.open(sheet).size[0] > 300
    shard = next((searched / "data" / "16-32").glob("train-*.tar"))
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-600])
    capsys.readouterr()
    assert main(["verify", str(searched / "data")]) == 1
    assert shard.name in capsys.readouterr().out
    shard.write_bytes(whole)
    assert main(["status", str(searched / "data")]) == 0
    assert "8-16" in capsys.readouterr().out
    assert main(["status", str(searched / "photos")]) == 1
    assert "neither a run" in capsys.readouterr().err
