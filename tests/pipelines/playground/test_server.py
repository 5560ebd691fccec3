"""The page's API: the same images as `sr3 upscale`, one after another, and what it refuses."""

import io
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from pipelines.playground import enlargements
from pipelines.playground.enlargements import MOST_KEPT, MOST_WAITING, Enlargements
from pipelines.playground.model import TriedModel
from pipelines.playground.server import create_app
from pipelines.runs.run_folder import create_run
from pipelines.runtime.web_server import listen
from pipelines.sampling.photo_finder import Photo
from pipelines.sampling.photo_upscaler import PhotoUpscaler
from pipelines.settings.inference import InferenceConfig
from pipelines.settings.playground import PlaygroundConfig
from pipelines.settings.presets import small_stage
from pipelines.settings.train import RunConfig
from pipelines.settings.upscale import UpscaleConfig
from sr3core.config import override, to_dict
from sr3core.errors import ConfigError, StorageError
from sr3core.images.resize import resize_bicubic
from tests.pipelines.sampling.photos import picture, saved
from tests.processes import wait_for

CONFIG = PlaygroundConfig(max_megapixels=0.02, max_samples=3)


class Gate:
    """Holds the thread that works, before its first step, until it is opened."""

    def __init__(self) -> None:
        self.is_open = threading.Event()
        self.reached = threading.Event()

    def strips(self, *arguments: Any) -> Iterator[np.ndarray]:
        from pipelines.sampling.photo_upscaler import upscaled_strips

        self.reached.set()
        assert self.is_open.wait(60)
        yield from upscaled_strips(*arguments)


@pytest.fixture(scope="module")
def model(cascade_run: Path) -> TriedModel:
    return TriedModel(str(cascade_run), InferenceConfig(), "cpu")


@pytest.fixture
def client(model: TriedModel) -> Iterator[TestClient]:
    worker = Enlargements(model.load, CONFIG.max_megapixels)
    with TestClient(create_app(model, worker, CONFIG)) as client:
        yield client
    worker.close()


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    made = Gate()
    monkeypatch.setattr(enlargements, "upscaled_strips", made.strips)
    yield made
    made.is_open.set()


def send(client: TestClient, data: bytes, **query: Any) -> dict[str, Any]:
    answer = client.post("/api/pictures", content=data, params={"schedule": "2", **query})
    assert answer.status_code == 200, answer.text
    return answer.json()


def finished(client: TestClient, identifier: str) -> dict[str, Any]:
    def ended() -> dict[str, Any]:
        status = client.get(f"/api/pictures/{identifier}").json()
        return status if status["state"] not in ("waiting", "working") else {}

    return wait_for(ended)


def pixels_of(client: TestClient, address: str) -> np.ndarray:
    answer = client.get(address)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "image/png"
    return np.asarray(Image.open(io.BytesIO(answer.content)))


def test_samples_are_what_upscale_makes(client: TestClient, cascade_run: Path, tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(saved(picture(0, 9, 12)))
    sent = send(client, file.read_bytes(), seed=5, samples=2)
    assert (sent["width"], sent["height"], sent["seeds"]) == (48, 36, [5, 6])
    done = finished(client, sent["id"])
    assert (done["state"], done["finished"], done["fraction"]) == ("done", 2, 1)
    for number, seed in enumerate((5, 6)):
        config = to_dict(UpscaleConfig(schedule="2", seed=seed))
        upscaler = PhotoUpscaler(str(cascade_run), str(tmp_path / str(seed)), config, 1, "cpu")
        os.makedirs(tmp_path / str(seed))
        assert upscaler.work((Photo(str(file), "a.png"), "a.png")).made
        made = np.asarray(Image.open(tmp_path / str(seed) / "a.png"))
        np.testing.assert_array_equal(pixels_of(client, f"/api/pictures/{sent['id']}/{number}.png"), made)


def test_the_page_compares_with_bicubic_interpolation(client: TestClient) -> None:
    image = picture(0, 8, 12)
    sent = send(client, saved(image))
    expected = resize_bicubic(np.asarray(image), (32, 48))
    found = pixels_of(client, f"/api/pictures/{sent['id']}/interpolated.png").astype(int)
    assert np.abs(found - expected).max() <= 1


def test_transparency_and_grey_are_kept(client: TestClient) -> None:
    clear = picture(0, 8, 8).convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize((8, 8)))
    for image, mode in ((clear, "RGBA"), (picture(0, 8, 8).convert("L"), "L")):
        sent = send(client, saved(image))
        assert finished(client, sent["id"])["state"] == "done"
        for name in ("0", "interpolated"):
            content = client.get(f"/api/pictures/{sent['id']}/{name}.png").content
            assert Image.open(io.BytesIO(content)).mode == mode


def test_pictures_wait_for_one_another_and_can_be_cancelled(client: TestClient, gate: Gate) -> None:
    data = saved(picture(0, 8, 8))
    first, second, third = (send(client, data)["id"] for _ in range(3))
    assert gate.reached.wait(60)
    states = [client.get(f"/api/pictures/{each}").json() for each in (first, second, third)]
    assert [(status["state"], status["before"]) for status in states] == [
        ("working", 0),
        ("waiting", 1),
        ("waiting", 2),
    ]
    assert client.get(f"/api/pictures/{first}/0.png").json() == {"text": "This sample is not finished."}
    for each in (first, second):
        assert client.delete(f"/api/pictures/{each}").json()["state"] == "cancelled"
    gate.is_open.set()
    assert finished(client, third)["state"] == "done"
    for each in (first, second):
        status = client.get(f"/api/pictures/{each}").json()
        assert (status["state"], status["finished"]) == ("cancelled", 0)


def test_too_many_are_turned_away_and_the_oldest_are_forgotten(client: TestClient, gate: Gate) -> None:
    data = saved(picture(0, 8, 8))
    kept = [send(client, data)["id"]]
    assert gate.reached.wait(60)
    kept += [send(client, data)["id"] for _ in range(MOST_WAITING)]
    refused = client.post("/api/pictures", content=data)
    assert (refused.status_code, "waiting already" in refused.json()["text"]) == (503, True)
    gate.is_open.set()
    for each in kept:
        assert finished(client, each)["state"] == "done"
    for _ in range(MOST_KEPT):
        finished(client, send(client, data)["id"])
    gone = client.get(f"/api/pictures/{kept[0]}")
    assert (gone.status_code, gone.json()) == (404, {"text": "This picture is no longer kept; drop it again."})


def test_a_failure_is_shown(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> Iterator[np.ndarray]:
        raise RuntimeError("no memory was left")

    monkeypatch.setattr(enlargements, "upscaled_strips", fail)
    status = finished(client, send(client, saved(picture(0, 8, 8)))["id"])
    assert (status["state"], status["error"]) == ("failed", "no memory was left")


@pytest.mark.parametrize(
    ("data", "query", "status", "text"),
    [
        (b"%PDF-1.7", {}, 422, "This picture cannot be upscaled: PDF"),
        (saved(picture(0, 64, 64)), {}, 422, "may have 0.02 megapixels"),
        (saved(picture(0, 8, 8)), {"schedule": "99999"}, 422, "is not in 1.."),
        (saved(picture(0, 8, 8)), {"samples": 4}, 400, "At most 3 samples can be drawn at once."),
    ],
)
def test_what_cannot_be_upscaled_is_refused_at_once(
    client: TestClient, data: bytes, query: dict[str, Any], status: int, text: str
) -> None:
    answer = client.post("/api/pictures", content=data, params=query)
    assert answer.status_code == status, answer.text
    assert text in answer.json()["text"]


def test_numbers_out_of_range_are_refused(client: TestClient) -> None:
    for query in ({"samples": 0}, {"seed": -1}, {"schedule": "/etc/passwd"}):
        assert client.post("/api/pictures", content=b"", params=query).status_code == 422


def test_the_page_says_what_is_tried_and_loads_nothing_from_elsewhere(client: TestClient, cascade_run: Path) -> None:
    page = client.get("/")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert str(cascade_run) in page.text
    for asset in ("try.js", "try.css"):
        assert f"assets/{asset}" in page.text
        assert client.get(f"/assets/{asset}").status_code == 200
    assert client.get("/assets/../server.py").status_code == 404
    described = client.get("/api/model").json()
    assert described["magnification"] == 4
    assert described["limits"] == {"megapixels": CONFIG.max_megapixels, "samples": CONFIG.max_samples}


def test_a_port_that_is_taken_is_named() -> None:
    with listen("127.0.0.1", 0) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(StorageError, match=f"cannot listen on 127.0.0.1:{port}: Address already in use"):
            listen("127.0.0.1", port)


def test_a_run_without_super_resolution_and_wrong_settings_are_refused(tmp_path: Path) -> None:
    stages = (small_stage(None, 16, base_channels=8, num_steps=1, num_workers=0),)
    run = create_run(tmp_path / "run", RunConfig(name="base", stages=stages), "data", {}, fresh=False)
    with pytest.raises(ConfigError, match="holds no super-resolution stage"):
        TriedModel(run.location, InferenceConfig(), "cpu")
    for changes in ({"port": 70_000}, {"max_megapixels": 0.0}, {"max_samples": 0}):
        with pytest.raises(ConfigError, match=next(iter(changes))):
            override(PlaygroundConfig(), **changes)
