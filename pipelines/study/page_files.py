"""The pages of a study: fixed files, in which only the title and the base address are filled in."""

from html import escape
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response

from pipelines.study.refusals import Refused
from pipelines.study.study_folder import Study

PAGES = Path(__file__).parent / "pages"


def add_pages(app: FastAPI, study: Study, root_path: str) -> None:
    """Serve the study's page, the administrator's, and one for addresses that lead nowhere."""
    pages = {
        name: (PAGES / name).read_text("utf-8").replace("{{base}}", f"{root_path}/").replace("{{title}}", escape(title))
        for name, title in {
            "index.html": study.config.title,
            "admin.html": f"{study.config.title}: progress",
            "missing.html": study.config.title,
        }.items()
    }
    types = {".js": "text/javascript", ".css": "text/css"}
    assets = {file.name: (file.read_bytes(), types[file.suffix]) for file in (PAGES / "assets").iterdir()}

    @app.get("/assets/{name}")
    def asset(name: str) -> Response:
        if name not in assets:
            raise Refused(404, "asset", "There is no such file.")
        content, media_type = assets[name]
        return Response(content, media_type=media_type)

    @app.get("/")
    def index() -> HTMLResponse:
        return HTMLResponse(pages["index.html"])

    @app.get("/admin")
    def admin() -> HTMLResponse:
        return HTMLResponse(pages["admin.html"])

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"study": study.fingerprint}

    @app.exception_handler(404)
    def missing(request: Request, _: Exception) -> Response:
        """A page for a person who mistyped an address; a program's request is answered by JSON."""
        if "text/html" in request.headers.get("accept", ""):
            return HTMLResponse(pages["missing.html"], 404)
        return JSONResponse({"code": "address", "text": "There is nothing at this address."}, 404)
