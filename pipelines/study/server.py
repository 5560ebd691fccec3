"""`sr3 study serve`: the study's pages and the API that they call. A thin layer; visits.py makes the decisions."""

import logging
import re
import secrets
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import FastAPI, Header, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field

from pipelines.runtime.web_server import address_of, listen, run_app
from pipelines.study import visits
from pipelines.study.answers import progress
from pipelines.study.config import ServeConfig
from pipelines.study.database import Database, open_database
from pipelines.study.page_files import add_pages
from pipelines.study.refusals import RateLimit, Refused
from pipelines.study.study_folder import Study
from pipelines.study.tokens import Tokens
from sr3core.errors import StorageError

MAX_BODY_BYTES = 16_384
MAX_ID = 128
BURST_SECONDS = 10
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:;"
    " connect-src 'self'; base-uri 'self'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",  # the URL contains the participant's id
    "X-Content-Type-Options": "nosniff",
    "X-Robots-Tag": "noindex",
}
log = logging.getLogger(__name__)


class Arrival(BaseModel):
    """The query parameters of the URL that a person opened."""

    parameters: dict[str, str] = Field(default_factory=dict)


class Answer(BaseModel):
    """A choice, with the page's measurements."""

    token: str = Field(max_length=512)
    choice: str = Field(pattern="^(first|second)$")
    exposure_seconds: float = Field(ge=0, le=3600, allow_inf_nan=False)
    response_seconds: float = Field(ge=0, le=86400, allow_inf_nan=False)
    focus_lost_viewing: int = Field(ge=0, le=10**6)
    focus_lost_answering: int = Field(ge=0, le=10**6)


Authorization = Annotated[str, Header()]


def serve(study: Study, config: ServeConfig, on_ready: Callable[[str], None] = print) -> None:
    """Serve a study until interrupted.

    Args:
        study: an open study.
        config: where to listen.
        on_ready: called with the URLs of the study and of the administrator's page once the server listens.

    Raises:
        DataError: an image of the study was changed, or the database belongs to another study.
        StorageError: the database cannot be written, or the port is taken.
    """
    study.verify()
    database = open_database(config.database, study.sqlite_path, study.fingerprint)
    app = create_app(study, database, config)
    listening = listen(config.host, config.port)
    base = f"{address_of(config.host, listening)}{config.root_path}/"
    try:
        run_app(
            app,
            listening,
            lambda: on_ready(f"study: {base}\nadministrator: {base}admin#{study.secrets().admin}"),
            proxy_headers=True,
            forwarded_allow_ips=config.forwarded_allow_ips,
        )
    finally:
        database.close()


def create_app(study: Study, database: Database, config: ServeConfig) -> FastAPI:
    """The web application of one study."""
    app = FastAPI(title=study.config.title, openapi_url=None, root_path=config.root_path)
    keys = study.secrets()
    people = visits.Visits(study, database, Tokens(keys.signing, round(60 * study.config.answer_within_minutes)))
    limits = Limits(config)
    _guard(app, limits)
    add_pages(app, study, config.root_path)
    _add_study(app, study, people, limits)
    _add_administration(app, study, database, keys.admin, limits)
    return app


class Limits:
    """Request limits: per person, per network address, and for attempts to guess the secret."""

    def __init__(self, config: ServeConfig) -> None:
        by_person, by_address = config.requests_per_second, config.requests_per_second_per_address
        self.person = RateLimit(by_person, BURST_SECONDS * by_person)
        self.address = RateLimit(by_address, BURST_SECONDS * by_address)
        self.guesses = RateLimit(0.1, 5)


def _address(request: Request) -> str:
    return request.client.host if request.client else ""


def _guard(app: FastAPI, limits: Limits) -> None:
    """Sets every response's headers, returns refusals and storage errors as JSON with a code, and limits requests by
    network address and by size."""

    @app.middleware("http")
    async def guard(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        try:
            limits.address.take(_address(request))
            if request.method == "POST":
                _check_size(request.headers.get("content-length", ""))
            response = await call_next(request)
        except Refused as refused:
            response = _refusal(refused)
        response.headers.update(HEADERS)
        return response

    @app.exception_handler(Refused)
    def refuse(_: Request, refused: Refused) -> Response:
        return _refusal(refused)

    @app.exception_handler(StorageError)
    def fail(_: Request, error: StorageError) -> Response:
        log.error("study: %s", error)
        text = "The answer could not be stored because of a problem on our side."
        return _refusal(Refused(503, "storage", text, retry_after=2))


def _check_size(length: str) -> None:
    if not length.isdecimal() or int(length) > MAX_BODY_BYTES:
        raise Refused(413, "size", f"A request must state a length of at most {MAX_BODY_BYTES} bytes.")


def _refusal(refused: Refused) -> Response:
    content = {"code": refused.code, "text": refused.text, "retry_after": refused.retry_after}
    headers = {} if refused.retry_after is None else {"Retry-After": str(int(refused.retry_after) + 1)}
    return JSONResponse(content, refused.status, headers)


def _add_study(app: FastAPI, study: Study, people: visits.Visits, limits: Limits) -> None:
    config = study.config
    about = {
        "title": config.title,
        "task": config.task,
        "question": config.question,
        "consent": list(config.consent),
        "contact": config.contact,
        "minutes": config.minutes_per_subject,
        "num_practice_trials": config.num_practice_trials,
        "num_trials": config.num_positions - config.num_practice_trials,
        "viewing_seconds": list(config.viewing_seconds),
        "participant_parameters": list(config.participant_parameters),
    }

    def session_of(authorization: str) -> str:
        session = authorization.removeprefix("Bearer ")
        limits.person.take(session)
        return session

    @app.post("/api/enter")
    def enter(arrival: Arrival) -> dict[str, Any]:
        given = participant_id(arrival.parameters, config.participant_parameters)
        own = given or f"visitor-{secrets.token_hex(8)}"
        limits.person.take(own)
        return {"about": about, "participant": own, "known": given is not None, **people.enter(own)}

    @app.post("/api/consent")
    def consent(authorization: Authorization) -> dict[str, Any]:
        return people.consent(session_of(authorization))

    @app.post("/api/next")
    def next_pair(authorization: Authorization) -> dict[str, Any]:
        return people.next(session_of(authorization))

    @app.post("/api/answer")
    def answer(sent: Answer, authorization: Authorization) -> dict[str, Any]:
        values = sent.model_dump(exclude={"token", "choice"})
        response = visits.Response(chose_first=sent.choice == "first", **values)
        return people.answer(session_of(authorization), sent.token, response)

    @app.post("/api/leave")
    def leave(authorization: Authorization) -> dict[str, Any]:
        return people.leave(session_of(authorization))

    @app.get("/image/{nonce}/{place}")
    def image(nonce: str, place: str) -> Response:
        # Not a file response: its ETag would reveal that two URLs show the same file.
        return Response(people.picture(nonce, place).read_bytes(), media_type="image/png")


def _add_administration(app: FastAPI, study: Study, database: Database, secret: str, limits: Limits) -> None:
    @app.get("/api/progress")
    def show_progress(request: Request, authorization: Authorization = "") -> dict[str, Any]:
        if not secrets.compare_digest(authorization.encode(), f"Bearer {secret}".encode()):
            limits.guesses.take(_address(request))
            raise Refused(401, "secret", "The secret is wrong; `sr3 study serve` prints the page's address with it.")
        return progress(study, database)


def participant_id(parameters: dict[str, str], names: tuple[str, ...]) -> str | None:
    """The participant's id from the URL; None if there is none.

    Raises:
        Refused: it is too long, or contains characters that recruiting services do not use.
    """
    given = next((parameters[name] for name in names if parameters.get(name)), None)
    if given is not None and not re.fullmatch(rf"[\w.@:+-]{{1,{MAX_ID}}}", given):
        raise Refused(400, "participant", "The participant's id in the address is not valid.")
    return given
