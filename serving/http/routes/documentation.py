"""The pages that describe the API, with every script and style from this server: they need no internet."""

from importlib.util import find_spec
from pathlib import Path
from typing import Final

from fastapi import APIRouter, Request, Response
from fastapi.openapi.docs import get_redoc_html, get_swagger_ui_html
from fastapi.responses import FileResponse

from serving.http.problems import ProblemError

router = APIRouter(include_in_schema=False)

ASSETS: Final = ("swagger-ui-bundle.js", "swagger-ui.css", "redoc.standalone.js", "favicon.png")

NO_ASSETS: Final = "the pages' scripts are not installed (package fastapi-offline); /openapi.json has the description"


@router.get("/docs")
async def swagger(request: Request) -> Response:
    """Swagger UI, to read and to try."""
    root = request.scope.get("root_path", "")
    return get_swagger_ui_html(
        openapi_url=f"{root}/openapi.json",
        title=f"{request.app.title} - Swagger UI",
        swagger_js_url=f"{root}/docs/swagger-ui-bundle.js",
        swagger_css_url=f"{root}/docs/swagger-ui.css",
        swagger_favicon_url=f"{root}/docs/favicon.png",
        # no judgement of the description by a server on the internet
        swagger_ui_parameters={"validatorUrl": None},
    )


@router.get("/redoc")
async def redoc(request: Request) -> Response:
    """ReDoc, to read."""
    root = request.scope.get("root_path", "")
    return get_redoc_html(
        openapi_url=f"{root}/openapi.json",
        title=f"{request.app.title} - ReDoc",
        redoc_js_url=f"{root}/docs/redoc.standalone.js",
        redoc_favicon_url=f"{root}/docs/favicon.png",
        with_google_fonts=False,
    )


@router.get("/docs/{name}")
async def asset(name: str) -> Response:
    """A script, style or picture of the two pages.

    Raises:
        ProblemError: a name that they do not ask for, or an installation without them.
    """
    folder = _folder()
    if name not in ASSETS:
        raise ProblemError("not_found", f"/docs has no {name[:40]!r}")
    if folder is None:
        raise ProblemError("not_found", NO_ASSETS)
    return FileResponse(folder / name)


def _folder() -> Path | None:
    # the package is not imported: only its files are of use
    spec = find_spec("fastapi_offline")
    return Path(spec.origin).parent / "static" if spec is not None and spec.origin else None
