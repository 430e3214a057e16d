"""Google's API clients as the stages use them: which address, what is tried again, what an error says."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from serving.platform.errors import StageError, one_line
from serving.platform.google_identity import LOGIN
from serving.platform.grants import remedy

if TYPE_CHECKING:
    from google.api_core.retry import Retry

_FIXES: Final = {
    401: f"log in again: {LOGIN}",
    403: "grant the calling service account the role it lacks",
    404: "check project, region and name",
    409: "somebody else changed it meanwhile; run it again",
    429: "quota or rate exceeded; wait, or ask for more",
}


def connect(client: Any, host: str, api_endpoint: str = "") -> Any:
    """A REST client of one Google API.

    Args:
        client: the client's class, e.g. `run_v2.ServicesClient`.
        host: Google's host of the API.
        api_endpoint: another address. One without TLS gets no credentials: a token is never sent in the clear.
    """
    from google.auth.credentials import AnonymousCredentials

    options: dict[str, Any] = {"host": api_endpoint or host}
    if api_endpoint.startswith("http://"):
        options["credentials"] = AnonymousCredentials()  # type: ignore[no-untyped-call] # google-auth is untyped here
    return client(transport=client.get_transport_class("rest")(**options))


def patience(timeout_s: float) -> "Retry":
    """Ask again after 429 and 503, which say that nothing was done; any other error stands at once."""
    from google.api_core.exceptions import ServiceUnavailable, TooManyRequests
    from google.api_core.retry import Retry, if_exception_type

    return Retry(if_exception_type(ServiceUnavailable, TooManyRequests), initial=0.2, maximum=8.0, timeout=timeout_s)


def reading(timeout_s: float) -> "Retry":
    """Ask again for what changes nothing: also after 500, 502 and 504, and a connection that broke or kept silent."""
    from google.api_core.exceptions import (
        BadGateway,
        GatewayTimeout,
        InternalServerError,
        ServiceUnavailable,
        TooManyRequests,
    )
    from google.api_core.retry import Retry, if_exception_type
    from requests import exceptions as broken

    answers = (BadGateway, GatewayTimeout, InternalServerError, ServiceUnavailable, TooManyRequests)
    passing = if_exception_type(*answers, broken.ChunkedEncodingError, broken.ConnectionError, broken.Timeout)
    return Retry(passing, initial=0.2, maximum=8.0, timeout=timeout_s)


@contextmanager
def google_errors(doing: str) -> Iterator[None]:
    """Turn what Google's libraries raise into one line that names the problem and the fix."""
    from google.api_core.exceptions import GoogleAPICallError, GoogleAPIError, RetryError
    from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError

    try:
        yield
    except DefaultCredentialsError as error:
        raise StageError(f"{doing}: no Google credentials; run: {LOGIN}") from error
    except GoogleAuthError as error:
        fix = remedy(str(error)) or _FIXES[401]
        raise StageError(f"{doing}: the Google credentials were not accepted: {one_line(error)}; {fix}") from error
    except RetryError as error:
        raise StageError(f"{doing}: still refused after many tries: {one_line(error.cause or error)}") from error
    except GoogleAPICallError as error:
        code = int(error.code or 0)
        fix = remedy(str(error.message)) or _FIXES.get(code, "")
        raise StageError(f"{doing}: {code} {error.message}" + (f"; {fix}" if fix else "")) from error
    except (GoogleAPIError, OSError) as error:
        raise StageError(f"{doing}: {one_line(error)}; check the network") from error


def label(value: str) -> str:
    """A value in the characters and length that Google's labels allow."""
    return re.sub(r"[^a-z0-9_-]", "-", value.lower())[:63]


def access_token(doing: str) -> str:
    """An access token of the application default credentials.

    Raises:
        StageError: there are none, or Google does not take them; `doing` says what for.
    """
    with google_errors(doing):
        import google.auth
        from google.auth.transport.requests import Request

        credentials, _ = google.auth.default(scopes=["https://www.googleapis.com/auth/cloud-platform"])
        credentials.refresh(Request())  # type: ignore[no-untyped-call] # google-auth is untyped here
        return str(credentials.token)
