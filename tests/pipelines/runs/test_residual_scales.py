"""The scale of residuals: measured once, when the run is created, and part of its configuration from then on."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.runs.residual_scales import SMALLEST, measure, standard_deviation
from pipelines.runs.run_folder import create_run, data_fingerprints, open_run
from pipelines.settings.presets import small_stage
from pipelines.settings.train import RunConfig
from pipelines.shards.manifest import load_manifest
from sr3core.config import override
from sr3core.errors import DataError
from tests.preparing import prepared


@pytest.fixture(scope="module")
def data(photos, tmp_path_factory, ray_session):
    return prepared(photos, tmp_path_factory.mktemp("residuals"), 40, "8-32", samples_per_shard=8)


def run_of(**changes):
    stage = small_stage(8, 32, base_channels=8, num_steps=10, num_workers=0)
    return RunConfig(name="r", stages=(override(stage, model__objective__residual="upsampled", **changes),))


def pictures_of(data):
    """Every training pair, read from the tars by other means than ours."""
    pairs = {}
    for path in sorted(Path(data).glob("8-32/*train*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                key, _, kind = member.name.partition(".")
                if kind.endswith("png"):
                    pairs.setdefault(key, {})[kind] = Image.open(io.BytesIO(tar.extractfile(member).read()))
    return [(pair["lr.png"], pair["hr.png"]) for pair in pairs.values()]


def test_it_is_the_standard_deviation_by_another_implementation(data):
    """Pillow's bicubic filter on float images, one channel at a time, is antialiased and has a = -0.5 as ours."""
    rests = []
    for low, high in pictures_of(data):
        planes = [Image.fromarray(np.asarray(low)[..., c].astype(np.float32)) for c in range(3)]
        x_up = np.stack([np.asarray(plane.resize(high.size, Image.Resampling.BICUBIC)) for plane in planes], axis=-1)
        rests.append((np.asarray(high).astype(np.float32) - x_up) / 127.5)
    assert len(rests) == load_manifest(f"{data}/8-32").num_samples("train")
    assert measure(data, "8-32") == pytest.approx(np.std(rests, axis=(0, 1, 2)), rel=2e-3)


def test_few_images_are_spread_over_all_shards_and_come_close(data):
    assert measure(data, "8-32", num_images=16) == pytest.approx(measure(data, "8-32"), rel=0.2)


def test_it_is_written_into_the_run_and_taken_over_when_the_run_is_resumed(data, tmp_path):
    fingerprints = data_fingerprints(data, run_of())
    created = create_run(tmp_path / "run", run_of(), data, fingerprints, fresh=False)
    (stage,) = created.config.stages
    assert stage.model.objective.residual_scale == measure(data, "8-32")
    assert open_run(tmp_path / "run").config == created.config
    # The data are not read again: they are not even there.
    resumed = create_run(tmp_path / "run", run_of(), "/nowhere", fingerprints, fresh=False)
    assert resumed.config == created.config


def test_a_scale_that_is_given_is_kept(data, tmp_path):
    config = run_of(model__objective__residual_scale=(0.1, 0.2, 0.3))
    run = create_run(tmp_path / "run", config, data, data_fingerprints(data, config), fresh=False)
    assert run.config == config


def test_a_run_on_other_data_measures_anew(data, tmp_path):
    config_file = tmp_path / "run" / "config.json"
    create_run(tmp_path / "run", run_of(), data, {"8-32": "of other data"}, fresh=False)
    content = json.loads(config_file.read_text())
    content["config"]["stages"][0]["model"]["objective"]["residual_scale"] = [9.0, 9.0, 9.0]
    config_file.write_text(json.dumps(content))
    run = create_run(tmp_path / "run", run_of(), data, data_fingerprints(data, run_of()), fresh=False)
    assert run.config.stages[0].model.objective.residual_scale == measure(data, "8-32")


def test_images_that_equal_their_upsampled_inputs_have_no_residual():
    flat = np.full((32, 32, 3), 90, np.uint8)
    assert max(standard_deviation([(flat[:8, :8], flat)] * 3)) < SMALLEST


def test_a_split_without_images_says_so(data):
    with pytest.raises(DataError, match="16-64"):
        measure(data, "16-64")
