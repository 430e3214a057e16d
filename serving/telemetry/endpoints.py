"""A request's path to its route template, before routing: one bounded set of names for metrics, logs and limits."""

import re
from collections.abc import Sequence
from typing import Final

from fastapi.routing import iter_route_contexts
from starlette.routing import BaseRoute, compile_path

UNMATCHED: Final = "unmatched"
"""The one label of every path that is no route."""


class Endpoints:
    """The application's route templates."""

    def __init__(self, routes: Sequence[BaseRoute]) -> None:
        self._fixed: set[str] = set()
        self._patterns: list[tuple[re.Pattern[str], str]] = []
        for route in iter_route_contexts(routes):
            template = route.path
            if not template:
                continue
            if "{" in template:
                self._patterns.append((compile_path(template)[0], template))
            else:
                self._fixed.add(template)

    def template(self, path: str) -> str:
        """`/v2/models/x/infer` -> `/v2/models/{name}/infer`; `UNMATCHED` for what is no route."""
        if path in self._fixed:
            return path
        for pattern, template in self._patterns:
            if pattern.match(path):
                return template
        return UNMATCHED
