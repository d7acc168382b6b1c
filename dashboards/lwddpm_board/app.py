"""The web application: the views together, and what is shown when something is missing or out of reach."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse, Response
from fastapi.staticfiles import StaticFiles
from mlflow.exceptions import MlflowException
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from lwddpm.errors import LwddpmError
from lwddpm_board import (
    access,
    audit,
    dataset,
    edit,
    generate,
    lineage,
    readers,
    registry,
    runs,
    search,
    version,
    versions,
)
from lwddpm_board.audits import Audits
from lwddpm_board.drawing import Drawings
from lwddpm_board.edit import Sources
from lwddpm_board.pages import VIEWS, render
from lwddpm_board.stores import Missing, NothingYet, Stores, Unreachable

_log = logging.getLogger("lwddpm_board")
_HERE = Path(__file__).parent


def create_app(stores: Stores, who: access.Access) -> ASGIApp:
    """The board as an ASGI application."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        app.state.drawings.close()

    app = FastAPI(title="LW-DDPM board", docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    app.state.stores, app.state.access, app.state.drawings = stores, who, Drawings(stores)
    app.state.edit_sources, app.state.audits = Sources(), Audits()
    app.mount("/static", StaticFiles(directory=_HERE / "static"), name="static")
    for view in (access, runs, search, versions, registry, version, audit, generate, edit, lineage, dataset, readers):
        app.include_router(view.router)
    app.add_api_route("/", lambda: RedirectResponse("/runs"), include_in_schema=False)
    app.add_api_route("/favicon.ico", lambda: RedirectResponse("/static/icon.svg"), include_in_schema=False)
    app.add_api_route("/api/health", _health)
    for kind in (LwddpmError, MlflowException, HTTPException, RequestValidationError, Exception):
        app.add_exception_handler(kind, _explain)
    return access.Guard(app, who)  # outermost: what it adds stands on error pages too


def _health(request: Request) -> dict[str, bool]:
    """Whether the tracking store answers; the page that says it does not asks again and again."""
    stores: Stores = request.app.state.stores
    stores.client.search_experiments(max_results=1)
    return {"ok": True}


def _explain(request: Request, error: Exception) -> Response:
    """A page, or JSON for scripts, that says what is wrong. What only developers can read goes to the log."""
    status, message = _meaning(error, request.app.state.stores)
    if status == 500:
        _log.error("%s %s", request.method, request.url.path, exc_info=error)
    if request.url.path.startswith("/api/"):
        return JSONResponse({"error": message}, 404 if status == 200 else status)
    if isinstance(error, NothingYet):
        view = request.url.path.split("/")[1]
        return render(request, "empty.html", view=view if view in VIEWS else "runs", why=message)
    return render(request, "error.html", status, message=message, retry=status == 503)


def _meaning(error: Exception, stores: Stores) -> tuple[int, str]:
    silent = f"MLflow at {stores.place} does not answer"
    match error:
        case NothingYet():
            return 200, str(error)
        case Unreachable():
            return 503, str(error)
        case Missing():
            return 404, str(error)
        case LwddpmError():
            return 409 if error.exit_code == 1 else 422, str(error)
        case HTTPException():
            return error.status_code, "There is no such page." if error.status_code == 404 else str(error.detail)
        case RequestValidationError():
            return 422, "; ".join(_broken_rule(item) for item in error.errors())
        case MlflowException():
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                return 404, "MLflow holds nothing under this name."
            _log.warning("%s: %s", error.error_code, error.message)
            return 503, silent
    return 500, "This could not be shown. The reason is in the board's log."


def _broken_rule(item: Any) -> str:
    return f"{'.'.join(str(part) for part in item['loc'][1:])}: {item['msg'].lower()}, got {str(item['input'])[:80]!r}"
