"""Studies of bundled photos with simple filters as "models", a real server process, and subjects that talk HTTP."""

import http.client
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from PIL import Image

from pipelines.study.config import StudyConfig
from pipelines.study.freeze import Folders, new_study
from pipelines.study.study_folder import Study
from sr3core.images.resize import resize_area, resize_bicubic

MODELS = ("bicubic", "soft")


def make_folders(folder: Path, photos: Path, count: int, size: int = 32) -> Folders:
    """References, inputs and two models' outputs made of photos: from a quarter, and three quarters, of the size."""
    for name in ("references", "inputs", *MODELS):
        (folder / name).mkdir(parents=True)
    for source in sorted(photos.glob("*.jpg"))[:count]:
        with Image.open(source) as photo:
            high = resize_area(np.asarray(photo.convert("RGB")), size)
        low, middle = resize_bicubic(high, size // 4), resize_bicubic(high, size * 3 // 4)
        made = {"references": high, "inputs": low}
        made |= {"bicubic": resize_bicubic(low, size), "soft": resize_bicubic(middle, size)}
        for name, pixels in made.items():
            Image.fromarray(pixels).save(folder / name / f"{source.stem}.png")
    models = {name: str(folder / name) for name in MODELS}
    return Folders(references=str(folder / "references"), inputs=str(folder / "inputs"), models=models)


def small_config(**changes: Any) -> StudyConfig:
    """A study that a test gets through: 6 images, 4 subjects a model, 4 trials, one check, one practice trial."""
    values: dict[str, Any] = {
        "task": 1,
        "num_images": 6,
        "subjects_per_model": 4,
        "trials_per_subject": 4,
        "viewing_seconds": (0.05,),
        "num_attention_checks": 1,
        "num_practice_trials": 1,
    }
    return StudyConfig(**(values | changes))


def make_study(folder: Path, photos: Path, count: int = 8, **changes: Any) -> Study:
    """A frozen study in folder/study."""
    return new_study(make_folders(folder / "images", photos, count), small_config(**changes), str(folder / "study"))


class Server:
    """`sr3 study serve` in a process of its own."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(2)]
        if not lines[1]:
            raise RuntimeError(f"the server ended: {process.stderr.read() if process.stderr else ''}")
        self.address = lines[0].split()[1]
        self.secret = lines[1].split("#")[1].strip()

    @property
    def port(self) -> int:
        """Where it listens."""
        return urlsplit(self.address).port or 0


def command(study: Path, *options: str) -> list[str]:
    """The command line of a server on a free port."""
    port = () if "--port" in options else ("--port", "0")
    return [sys.executable, "-m", "cluster", "study", "serve", str(study), *port, *options]


@contextmanager
def running(arguments: Sequence[str], **options: Any) -> Iterator[Server]:
    """Start a server's command line, and end it by its own id."""
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)
    try:
        yield Server(process)
    finally:
        process.kill()
        process.communicate()


class Subject:
    """A participant who talks to the server as the page does; the connection is kept open."""

    def __init__(self, address: str, name: str) -> None:
        parts = urlsplit(address)
        self.host, self.base, self.name = parts.netloc, parts.path, name
        self.session = ""
        self._connection: http.client.HTTPConnection | None = None

    def ask(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Any:
        """One request: status and content (JSON, or bytes of an image).

        Raises:
            OSError: the server is not there.
        """
        self._connection = self._connection or http.client.HTTPConnection(self.host, timeout=60)
        sent = {"Content-Type": "application/json", **(headers or {})}
        if self.session and "Authorization" not in sent:
            sent["Authorization"] = f"Bearer {self.session}"
        try:
            self._connection.request(method, self.base + path, json.dumps(body), sent)
            response = self._connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            self._connection = None
            raise ConnectionError(str(error)) from error
        is_json = response.headers.get_content_type() == "application/json"
        return response.status, json.loads(content) if is_json else content

    def enter(self) -> dict[str, Any]:
        """Open the address."""
        status, answer = self.ask("POST", "api/enter", {"parameters": {"PROLIFIC_PID": self.name}})
        assert status == 200, answer
        self.session = answer["session"]
        return answer

    def begin(self) -> dict[str, Any]:
        """Open the address and agree."""
        self.enter()
        status, answer = self.ask("POST", "api/consent", {})
        assert status == 200, answer
        return answer

    def next(self) -> dict[str, Any]:
        """Ask for the next pair."""
        status, answer = self.ask("POST", "api/next", {})
        assert status == 200, answer
        return answer

    def answer(self, token: str, choice: str = "first", **changes: Any) -> Any:
        """Send an answer."""
        values = {"exposure_seconds": 0.05, "response_seconds": 0.4, "focus_lost_viewing": 0, "focus_lost_answering": 0}
        return self.ask("POST", "api/answer", {"token": token, "choice": choice, **values, **changes})

    def answer_when_allowed(self, token: str, choice: str = "first", **changes: Any) -> Any:
        """Send an answer, again where it came too early, as the page does."""
        while True:
            status, answer = self.answer(token, choice, **changes)
            if status != 425:
                return status, answer
            time.sleep(answer["retry_after"])

    def finish(self, choose: Callable[[dict[str, Any]], str], with_images: bool = False) -> dict[str, Any]:
        """Answer until the end; returns where the server says that the person is."""
        while (shown := self.next())["state"] == "active":
            for address in shown["images"].values() if with_images else ():
                status, data = self.ask("GET", address)
                assert status == 200
                assert data.startswith(b"\x89PNG")
            status, answer = self.answer_when_allowed(shown["token"], choose(shown))
            assert status == 200, answer
        return shown


def right_answer(study: Study, slot: int, position: int) -> str:
    """Where the original is, which only the server's side knows."""
    return "first" if study.plan.slots[slot].trials[position].original_first else "second"
