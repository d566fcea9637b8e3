"""The application: the endpoints, health, and what OpenAPI says of them."""

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any, Final

import anyio.to_thread
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy import URL
from starlette.exceptions import HTTPException

from buffer_pipeline.api.books import Books
from buffer_pipeline.api.gate import Gate, log_unexpected
from buffer_pipeline.api.openapi import document_of_the_api
from buffer_pipeline.api.problems import of_validation, problem_of, unavailable
from buffer_pipeline.api.routes import ROUTERS
from buffer_pipeline.database import REVISION
from buffer_pipeline.settings import Settings

CONNECTIONS: Final = 16
"""Requests that work at a time, each on a connection of its own; others wait for their turn."""


def create_app(
    url: URL | str,
    settings: Settings,
    *,
    connections: int = CONNECTIONS,
    stopping: threading.Event | None = None,
) -> FastAPI:
    """Return the API on the books at `url`. The login must be a member of the roles of its keys.

    While `stopping` is set, `/readyz` answers 503.
    """
    books = Books(url, settings, connections=connections)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        anyio.to_thread.current_default_thread_limiter().total_tokens = connections
        yield
        books.close()

    app = FastAPI(
        title="Payment buffer",
        version=version("buffer-pipeline"),
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
    )
    app.state.books = books
    app.add_middleware(Gate, books=books)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _refused)
    for router in ROUTERS:
        app.include_router(router)
    _add_health(app, books, stopping or threading.Event())
    document = document_of_the_api(app)

    @app.get("/openapi.json", include_in_schema=False)
    async def openapi() -> JSONResponse:
        return JSONResponse(document)

    return app


async def _invalid(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return of_validation(error.errors()).response()


async def _refused(request: Request, error: Exception) -> Response:
    problem = problem_of(error)
    log_unexpected(error, problem, request_id=request.state.request_id)
    return problem.response()


def _add_health(app: FastAPI, books: Books, stopping: threading.Event) -> None:
    @app.get("/livez", include_in_schema=False)
    async def livez() -> dict[str, Any]:
        return {"alive": True}

    @app.get("/readyz", include_in_schema=False)
    def readyz() -> dict[str, Any]:
        if stopping.is_set():
            raise unavailable("this server stops")
        found = books.revision()
        if found != REVISION:
            raise unavailable(f"the books are at revision {found}, this version needs {REVISION}")
        return {"ready": True, "revision": found}
