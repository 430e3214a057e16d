"""Routes without FastAPI's injection: for endpoints that read the request themselves."""

from collections.abc import Callable, Coroutine
from inspect import signature
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute


class DirectRoute(APIRoute):
    """Calls its endpoint, `async def endpoint(request) -> Response`, with nothing in between.

    FastAPI's handler would look for a body, solve dependencies that are not there, and merge a response that nobody
    uses: a sixteenth of the event loop's time for a prediction. Documentation and routing are FastAPI's own.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The endpoint itself.

        Raises:
            TypeError: it asks for more than the request.
        """
        if list(signature(self.endpoint).parameters) != ["request"] or self.dependencies:
            raise TypeError(f"{self.path}: a DirectRoute's endpoint takes `request` and nothing else")
        endpoint: Callable[[Request], Coroutine[Any, Any, Response]] = self.endpoint
        return endpoint
