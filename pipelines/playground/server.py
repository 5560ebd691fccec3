"""`sr3 try`: a page on which pictures are dropped, and the API that it calls."""

from collections.abc import Awaitable, Callable
from html import escape
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response
from starlette.concurrency import run_in_threadpool

from pipelines.images.file_names import MAX_FILE_BYTES
from pipelines.images.rejects import DecodeError
from pipelines.playground.enlargements import BusyError, Enlargement, Enlargements, interpolated
from pipelines.playground.model import TriedModel
from pipelines.runtime.web_server import address_of, listen, run_app
from pipelines.settings.playground import PlaygroundConfig
from sr3core.errors import ConfigError

PAGES = Path(__file__).parent / "pages"
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:;"
    " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class _PageError(Exception):
    """What the page is told instead of an answer."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status, self.text = status, text


def serve(model: TriedModel, config: PlaygroundConfig, on_ready: Callable[[str], None] = print) -> None:
    """Serve the page until interrupted.

    Args:
        model: what is tried.
        config: where to listen, and what is allowed.
        on_ready: called with the page's address once the server listens.

    Raises:
        StorageError: the port is taken.
    """
    listening = listen(config.host, config.port)
    enlargements = Enlargements(model.load, config.max_megapixels)
    address = address_of(config.host, listening)
    try:
        run_app(create_app(model, enlargements, config), listening, lambda: on_ready(f"open in a browser: {address}/"))
    finally:
        enlargements.close()


def create_app(model: TriedModel, enlargements: Enlargements, config: PlaygroundConfig) -> FastAPI:
    """The web application."""
    app = FastAPI(title="sr3 try", openapi_url=None)
    _guard(app)
    _add_page(app, model)
    _add_pictures(app, enlargements, config)

    @app.get("/api/model")
    def describe() -> dict[str, Any]:
        limits = {"megapixels": config.max_megapixels, "samples": config.max_samples}
        return {**model.describe(), "limits": limits}

    return app


def _guard(app: FastAPI) -> None:
    """Headers of every answer; problems as JSON."""

    @app.middleware("http")
    async def guard(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        response = await call_next(request)
        response.headers.update(HEADERS)
        return response

    @app.exception_handler(_PageError)
    def tell(_: Request, problem: _PageError) -> Response:
        return JSONResponse({"text": problem.text}, problem.status)


def _add_page(app: FastAPI, model: TriedModel) -> None:
    page = (PAGES / "index.html").read_text("utf-8").replace("{{title}}", escape(model.title))
    types = {".js": "text/javascript", ".css": "text/css"}
    assets = {file.name: (file.read_bytes(), types[file.suffix]) for file in (PAGES / "assets").iterdir()}

    @app.get("/")
    def index() -> HTMLResponse:
        return HTMLResponse(page)

    @app.get("/assets/{name}")
    def asset(name: str) -> Response:
        if name not in assets:
            raise _PageError(404, "There is no such file.")
        content, media_type = assets[name]
        return Response(content, media_type=media_type)


def _add_pictures(app: FastAPI, enlargements: Enlargements, config: PlaygroundConfig) -> None:
    def found(identifier: str) -> Enlargement:
        if one := enlargements.find(identifier):
            return one
        raise _PageError(404, "This picture is no longer kept; drop it again.")

    @app.post("/api/pictures")
    async def add(
        request: Request,
        schedule: Annotated[str | None, Query(pattern=r"^\d{1,5}$")] = None,
        seed: Annotated[int, Query(ge=0, lt=2**31)] = 0,
        samples: Annotated[int, Query(ge=1)] = 1,
    ) -> dict[str, Any]:
        if samples > config.max_samples:
            raise _PageError(400, f"At most {config.max_samples} samples can be drawn at once.")
        data = await _body(request)
        try:
            one = await run_in_threadpool(enlargements.add, data, schedule, seed, samples)
        except DecodeError as error:
            raise _PageError(422, f"This picture cannot be upscaled: {error.detail}.") from error
        except ConfigError as error:
            raise _PageError(422, str(error)) from error
        except BusyError as error:
            raise _PageError(503, "Other pictures are waiting already; try again when they are done.") from error
        return _status(enlargements, one)

    @app.get("/api/pictures/{identifier}")
    def status(identifier: str) -> dict[str, Any]:
        return _status(enlargements, found(identifier))

    @app.delete("/api/pictures/{identifier}")
    def cancel(identifier: str) -> dict[str, Any]:
        enlargements.cancel(identifier)
        return _status(enlargements, found(identifier))

    @app.get("/api/pictures/{identifier}/interpolated.png")
    def before(identifier: str) -> Response:
        return Response(interpolated(found(identifier)), media_type="image/png")

    @app.get("/api/pictures/{identifier}/{number}.png")
    def sample(identifier: str, number: int) -> Response:
        one = found(identifier)
        if not 0 <= number < len(one.samples):
            raise _PageError(404, "This sample is not finished.")
        return Response(one.samples[number], media_type="image/png")


async def _body(request: Request) -> bytes:
    data = bytearray()
    async for part in request.stream():
        data += part
        if len(data) > MAX_FILE_BYTES:
            raise _PageError(413, f"The file has more than {MAX_FILE_BYTES / 1e6:.0f} MB.")
    return bytes(data)


def _status(enlargements: Enlargements, one: Enlargement) -> dict[str, Any]:
    rows, columns = one.form.size
    return {
        "id": one.identifier,
        "state": one.state,
        "error": one.error,
        "fraction": one.fraction,
        "seconds_left": one.seconds_left,
        "before": enlargements.num_before(one),
        "seeds": one.seeds,
        "finished": len(one.samples),
        "width": columns,
        "height": rows,
        "notes": one.form.notes,
    }
