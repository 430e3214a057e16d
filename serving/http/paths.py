"""A request's path to the one route that serves it, before anything else is done: for limits, metrics, logs, routing.

What is found here is what the router is given, so no spelling of a path can pass the limits of one route and reach
another.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from fastapi.routing import iter_route_contexts
from starlette.routing import BaseRoute, compile_path
from starlette.types import Scope

UNMATCHED: Final = "unmatched"
"""The one label of every path that is no route."""


@dataclass(frozen=True, slots=True)
class Served:
    """A route that answers a path."""

    template: str
    """As `/v2/models/{name}/infer`; `UNMATCHED` where there is none."""
    methods: frozenset[str] = frozenset()
    """Methods it takes; HEAD wherever GET."""

    @property
    def exists(self) -> bool:
        """Whether there is such a route."""
        return self.template != UNMATCHED


_NOWHERE: Final = Served(UNMATCHED)


class Paths:
    """The application's routes by path. A slash at the end makes no difference; everything else does."""

    def __init__(self, routes: Sequence[BaseRoute], root_path: str = "") -> None:
        self._root = root_path
        fixed: dict[str, tuple[str, set[str]]] = {}
        patterns: dict[str, tuple[re.Pattern[str], set[str]]] = {}
        for route in iter_route_contexts(routes):
            template = route.path
            if template is None:
                continue
            # a mounted application has no methods of its own and serves what lies below its path
            methods = set(route.methods or ("GET",))
            if "{" in template:
                patterns.setdefault(template, (compile_path(template)[0], set()))[1].update(methods)
            else:
                fixed.setdefault(template.rstrip("/"), (template or "/", set()))[1].update(methods)
        self._fixed = {path: Served(template, _with_head(of)) for path, (template, of) in fixed.items()}
        self._patterns = [(pattern, Served(template, _with_head(of))) for template, (pattern, of) in patterns.items()]

    def find(self, path: str) -> tuple[Served, str]:
        """The route that answers `path`, and the path as that route spells it."""
        found = self._fixed.get(path)
        if found is None and path.endswith("/"):
            path = path[:-1]
            found = self._fixed.get(path)
        if found is not None:
            return found, found.template
        for pattern, served in self._patterns:
            # not `match`: a pattern's `$` is content before a last newline
            if pattern.fullmatch(path):
                return served, path
        return _NOWHERE, path

    def enter(self, scope: Scope) -> Scope:
        """The scope to go on with: `state` gets `served` and `endpoint`, and the path is its route's own.

        A root path (ROOT_PATH) in front makes no difference, whether the proxy that put it there takes it off again or
        not. HEAD goes on as GET: whoever sends the answer leaves its body out.
        """
        root = self._root
        path: str = scope["path"]
        inner = path[len(root) :] if root and (path + "/").startswith(root + "/") else path
        served, canonical = self.find(inner or "/")
        state = scope["state"]
        state["served"] = served
        state["endpoint"] = served.template
        head = scope["method"] == "HEAD" and "GET" in served.methods
        if not head and not root and path == canonical:
            return scope
        return {**scope, "root_path": root, "path": root + canonical, "method": "GET" if head else scope["method"]}


def _with_head(methods: set[str]) -> frozenset[str]:
    return frozenset(methods | {"HEAD"} if "GET" in methods else methods)
