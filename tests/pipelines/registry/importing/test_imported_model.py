"""Weights of other programs as model folders: what is taken over, and what is refused."""

import csv
from dataclasses import replace
from math import prod
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from cluster.cli import main
from pipelines.photo_model import load_model
from pipelines.registry.importing.imported_model import import_model, read_file
from pipelines.registry.importing.published import (
    Published,
    all_published,
    guided_diffusion_64_256,
    janspiry_16_128,
    janspiry_64_512,
)
from pipelines.registry.importing.weights_file import wanted_shapes
from pipelines.registry.model_folder import export_model
from pipelines.report.stages import stage_facts
from pipelines.runs.run_folder import data_fingerprints, open_run
from pipelines.settings.export import ExportConfig
from pipelines.settings.import_model import ImportConfig
from sr3core.diffusion.schedules import training_gammas
from sr3core.errors import CheckpointError, ConfigError, StorageError
from sr3core.hyperparameters import ModelConfig
from tests.sr3core.networks.imported import plain_guided_diffusion, plain_iterative_refinement
from tests.sr3core.networks.imported.small_models import GUIDED_DIFFUSION, ITERATIVE_REFINEMENT, weights_of


def _small(published: Published, model: ModelConfig) -> Published:
    stage = replace(published.stage, name=f"{model.low_size}-{model.high_size}", model=model)
    return replace(published, stage=stage, num_steps=4)


FACES = _small(janspiry_16_128(), ITERATIVE_REFINEMENT)
NATURAL = _small(guided_diffusion_64_256(), GUIDED_DIFFUSION)
KNOWN = (FACES, NATURAL)


def _faces() -> dict[str, Tensor]:
    """What such a file holds: the network, and the noise schedule beside it."""
    weights = {f"denoise_fn.{name}": value for name, value in weights_of(ITERATIVE_REFINEMENT).items()}
    betas = torch.tensor(np.linspace(1e-6, 1e-2, 2000), dtype=torch.float32)
    return {"betas": betas, "posterior_variance": betas, **weights}


def _saved(path: Path, content: object) -> str:
    torch.save(content, path)
    return str(path)


@pytest.fixture
def faces(tmp_path: Path) -> str:
    return _saved(tmp_path / "I640000_E37_gen.pth", _faces())


@pytest.fixture
def natural(tmp_path: Path) -> str:
    return _saved(tmp_path / "64_256_upsampler.pt", weights_of(GUIDED_DIFFUSION))


def test_a_model_folder_computes_what_the_file_does(faces: str, tmp_path: Path) -> None:
    file = read_file(faces, KNOWN)
    import_model(file, str(tmp_path / "model"), ImportConfig())
    run = open_run(tmp_path / "model")
    (stage,) = run.cascade()
    assert stage.weights.newest().step == 640_000
    x_up, y_t = torch.rand(2, 1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    gamma = torch.tensor([0.3])
    with torch.inference_mode():
        found = stage.weights.load()(x_up, y_t, gamma)
        wanted = plain_iterative_refinement.epsilon(weights_of(ITERATIVE_REFINEMENT), 8, x_up, y_t, gamma.sqrt())
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("label", [None, 7])
def test_a_class_becomes_a_constant(natural: str, tmp_path: Path, label: int | None) -> None:
    import_model(read_file(natural, KNOWN), str(tmp_path / "model"), ImportConfig(image_class=label))
    network = open_run(tmp_path / "model").cascade()[0].weights.load()
    weights = weights_of(GUIDED_DIFFUSION)
    if label is None:
        weights["label_emb.weight"] = weights["label_emb.weight"].mean(0, keepdim=True)
    low, y_t = torch.rand(1, 3, 8, 8) * 2 - 1, torch.rand(1, 3, 32, 32) * 2 - 1
    gamma = torch.tensor(training_gammas(GUIDED_DIFFUSION.noise_schedule)[[401]])
    with torch.inference_mode():
        found = network(torch.nn.functional.interpolate(low, (32, 32), mode="bilinear"), y_t, gamma)
        args = (low, y_t, torch.tensor([400]), torch.tensor([label or 0]))
        wanted = plain_guided_diffusion.epsilon_and_v(weights, 8, 4, 3, *args)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


def test_photos_are_upscaled_in_tiles_by_the_authors_schedule(natural: str, tmp_path: Path) -> None:
    import_model(read_file(natural, KNOWN), str(tmp_path / "model"), ImportConfig())
    model = load_model(str(tmp_path / "model"))
    schedule = model.stages[0].schedule
    assert schedule is not None
    assert (schedule.name, schedule.sampler.algorithm) == ("authors-4", "ancestral")
    pixels = np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    assert model.upscale(pixels, tile=32, overlap=16).shape == (36, 48, 3)


def test_the_report_and_the_card_know_imported_models(natural: str, tmp_path: Path) -> None:
    import_model(read_file(natural, KNOWN), str(tmp_path / "model"), ImportConfig(image_class=7))
    run = open_run(tmp_path / "model")
    facts = stage_facts(run.cascade()[0], [])
    embedding = prod(weights_of(GUIDED_DIFFUSION)["label_emb.weight"].shape)
    assert facts["num_parameters"] == sum(value.numel() for value in weights_of(GUIDED_DIFFUSION).values()) - embedding
    card = (tmp_path / "model" / "README.md").read_text()
    for words in (
        "# 8-32 of openai/guided-diffusion",
        "- source: `https://github.com/openai/guided-diffusion`",
        "- class: `7`",
        "ImageNet",
        "| unknown | 4 steps (authors-4, ancestral) |",
    ):
        assert words in card
    export_model(run, str(tmp_path / "half"), ExportConfig(title="Half", license="mit"))
    assert "- class: `7`" in (tmp_path / "half" / "README.md").read_text(), "models travel on"


def test_imported_networks_are_not_trained(faces: str, tmp_path: Path) -> None:
    import_model(read_file(faces, KNOWN), str(tmp_path / "model"), ImportConfig())
    with pytest.raises(ConfigError, match=r"8-32\.model\.unet\.architecture: .* cannot be trained here; use sr3"):
        data_fingerprints(str(tmp_path / "data"), open_run(tmp_path / "model").config)


def test_the_published_files_have_the_names_and_shapes_of_their_configurations() -> None:
    faces = plain_iterative_refinement.shapes_of(64, (1, 2, 4, 8, 8), 2, (16,), 128)
    large = plain_iterative_refinement.shapes_of(64, (1, 2, 4, 8, 16), 1, (), 512)
    natural = plain_guided_diffusion.shapes_of(192, (1, 1, 2, 2, 4, 4), 2, (32, 16, 8), 256)
    for published, shapes in ((janspiry_16_128(), faces), (janspiry_64_512(), large)):
        assert wanted_shapes(published) == {f"denoise_fn.{name}": shape for name, shape in shapes.items()}
    assert wanted_shapes(guided_diffusion_64_256()) == natural
    assert [(p.stage.name, p.schedule.num_steps) for p in all_published()] == [
        ("16-128", 2000),
        ("64-512", 2000),
        ("64-256", 250),
    ]


def test_the_authors_schedule_has_their_steps() -> None:
    """`--timestep_respacing 250` of 1000: round(i * 999 / 249), counted from 0."""
    published = guided_diffusion_64_256()
    levels = training_gammas(published.stage.model.noise_schedule)
    wanted = [levels[1 + round(i * 999 / 249)] for i in range(250)]
    np.testing.assert_allclose(published.schedule.gammas, [1.0, *wanted], rtol=1e-12)
    faces = janspiry_16_128()
    np.testing.assert_allclose(faces.schedule.gammas, training_gammas(faces.stage.model.noise_schedule), rtol=1e-12)


class _Code:
    """Pickles as a call, as an attacker's file would."""

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (Path("executed"),))


def _without(name: str) -> dict[str, Tensor]:
    return {key: value for key, value in _faces().items() if key != name}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (_without("denoise_fn.mid.0.attn.qkv.weight"), r"most: denoise_fn\.mid\.0\.attn\.qkv\.weight is missing"),
        ({**_faces(), "denoise_fn.downs.99.conv.bias": torch.zeros(1)}, r"downs\.99\.conv\.bias is unexpected"),
        ({**_faces(), "denoise_fn.downs.0.bias": torch.zeros(4)}, r"downs\.0\.bias is \(4,\) instead of \(16,\)"),
        ({**_faces(), "betas": torch.full((1000,), 0.01)}, "another noise schedule than the published one, of 2000"),
        ({**_faces(), "denoise_fn.downs.0.bias": torch.full((16,), torch.nan)}, "holds numbers that are not finite"),
        ({"conv.weight": torch.zeros(1)}, r"no network that can be imported, but conv\.weight, .* known are: I\*"),
        ({"epoch": 1, "iter": 2, "scheduler": None, "optimizer": {}}, "state of an optimiser; name the file beside"),
        ({"model": {"a": torch.zeros(1)}}, r"holds no state_dict, but model; save the network's state_dict"),
        ([1, 2], "holds no state_dict, but list"),
        (csv.excel(), "can only be read by executing code that it names"),
        (_Code(), "can only be read by executing code that it names, which import does not do"),
    ],
    ids=["missing", "extra", "shape", "schedule", "nan", "other", "optimiser", "nested", "list", "class", "code"],
)  # fmt: skip
def test_what_is_something_else_is_refused(
    content: object, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=message):
        read_file(_saved(tmp_path / "weights.pth", content), KNOWN)
    assert not Path("executed").exists()


@pytest.mark.parametrize("kind", ["text", "empty", "truncated", "json", "noise", "legacy junk"])
def test_damaged_files_are_refused(kind: str, faces: str, tmp_path: Path) -> None:
    path = tmp_path / "damaged.pth"
    whole = Path(faces).read_bytes()
    content = {
        "text": b"version https://git-lfs.github.com/spec/v1",
        "empty": b"",
        "truncated": whole[: len(whole) // 2],
        "json": b'{"architectures": ["UNet2DModel"]}',
        "noise": bytes(range(256)) * 8,
        "legacy junk": b"\x80\x02" + bytes(range(200)),
    }[kind]
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"damaged\.pth is no file of weights that torch reads, or is damaged"):
        read_file(str(path), KNOWN)
    with pytest.raises(StorageError, match=r"s3://bucket/weights\.pth is in a bucket; copy it to this machine"):
        read_file("s3://bucket/weights.pth", KNOWN)
    with pytest.raises(CheckpointError, match=r"nothing\.pth is no file on this machine; name one with weights"):
        read_file(str(tmp_path / "nothing.pth"), KNOWN)


def test_the_other_size_is_named() -> None:
    """The two published sizes have one kind of name; each is told from the other by its shapes alone."""
    small, large = (wanted_shapes(each) for each in (janspiry_16_128(), janspiry_64_512()))
    assert small.keys() & large.keys()
    assert small != large


def test_a_class_for_a_network_without_any_is_refused(faces: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds a network without classes; leave out --image-class"):
        import_model(read_file(faces, KNOWN), str(tmp_path / "model"), ImportConfig(image_class=3))
    with pytest.raises(ConfigError, match=r"image_class: 1000 is not in 0\.\.999"):
        ImportConfig(image_class=1000)


def test_the_command(
    natural: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.registry.importing.imported_model.all_published", lambda: KNOWN)
    out = str(tmp_path / "model")
    assert main(["import", natural, "--out", out, "--dry-run"]) == 0
    assert f"would write it to {out}" in capsys.readouterr().out
    assert not Path(out).exists()
    assert main(["import", natural, "--out", out, "--image-class", "3"]) == 0
    assert f"Next: `sr3 upscale PHOTOS --run {out} --out large" in capsys.readouterr().out
    assert main(["import", natural, "--out", out]) == 2
    assert "is not empty; choose a new folder" in capsys.readouterr().err
