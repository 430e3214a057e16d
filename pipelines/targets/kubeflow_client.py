"""KFP's own client of one server: opened, kept silent, asked again, and its errors in one line."""

import json
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pipelines.settings.pipeline import PipelineConfig
from serving.platform.errors import PreflightError, StageError

if TYPE_CHECKING:
    import kfp
    from google.api_core.retry import Retry

_FIXES: Final = {
    401: "; set kubeflow.token_file to a token that the server's gateway takes",
    403: "; ask for access to kubeflow.namespace",
    404: "; check kubeflow.host and kubeflow.namespace",
    429: "; too many requests, wait and try again",
    503: "; the server is starting or overloaded, try again",
}


def connect(config: PipelineConfig) -> "kfp.Client":
    """A client of the configured server.

    Raises:
        StageError: no server is configured, or it does not answer.
    """
    if not config.kubeflow.host:
        raise StageError("set kubeflow.host to the address of a Kubeflow Pipelines server, e.g. http://localhost:8888")
    import kfp
    from kfp.client.set_volume_credentials import ServiceAccountTokenVolumeCredentials

    token = config.kubeflow.token_file
    if token and not Path(token).is_file():
        raise StageError(f"kubeflow.token_file {token}: no such file; a pod's token is projected there by its volume")
    with server_errors(config):
        return kfp.Client(
            host=config.kubeflow.host,
            namespace=config.kubeflow.namespace or "kubeflow",
            credentials=ServiceAccountTokenVolumeCredentials(token) if token else None,
        )


def look(config: PipelineConfig) -> str:
    """Ask the server whether it takes runs of this configuration; says in words where it runs them.

    Raises:
        PreflightError: a server of many users, and no namespace of this one's.
        StageError: no server is configured, it refuses or does not answer.
    """
    client, namespace = connect(config), config.kubeflow.namespace
    again = patience(config.kubeflow.request_timeout_s)
    with server_errors(config):
        many = bool(again(client.get_kfp_healthz)().multi_user)
        if many and not namespace:
            raise PreflightError(
                f"Kubeflow Pipelines at {config.kubeflow.host} has many users: set kubeflow.namespace to yours"
            )
        # the first thing that a run does: who is not let in, or has no part of the namespace, is told so here
        again(client.list_experiments)(page_size=1, namespace=namespace if many else None)
    return f"answers; runs go to namespace {namespace}" if many else "answers; runs go to its own namespace"


@contextmanager
def package(spec: dict[str, Any]) -> Iterator[Path]:
    """The spec as a file that KFP's client takes: it goes by the ending, and JSON is YAML too."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "pipeline.yaml"
        file.write_text(json.dumps(spec))
        yield file


def patience(timeout_s: float) -> "Retry":
    """Read again while the server is starting, overloaded or out of reach; what changes something is sent once."""
    from google.api_core.retry import Retry
    from kfp_server_api import ApiException
    from urllib3.exceptions import HTTPError

    def passing(error: BaseException) -> bool:
        return isinstance(error, HTTPError) or (isinstance(error, ApiException) and error.status in (429, 503))

    return Retry(passing, initial=0.2, maximum=8.0, timeout=timeout_s)


@contextmanager
def server_errors(config: PipelineConfig) -> Iterator[None]:
    """Turn whatever KFP's client raises into one line that names the server and the fix, and keep it from talking."""
    from google.api_core.exceptions import RetryError
    from kfp_server_api import ApiException
    from urllib3.exceptions import HTTPError

    where = f"Kubeflow Pipelines at {config.kubeflow.host}"
    try:
        # the client prints links on standard output, where a verb's own answer belongs
        with redirect_stdout(StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    except (StageError, PreflightError):
        raise
    except RetryError as error:
        raise StageError(f"{where}: still refused after many tries: {_line(error.cause or error)}") from error
    except ApiException as error:
        fix = _FIXES.get(int(error.status or 0), "")
        raise StageError(f"{where}: {error.status} {_said(error)}{fix}") from error
    except (HTTPError, OSError) as error:
        raise StageError(f"{where} does not answer: {_line(error)}; check kubeflow.host and the network") from error
    except (ValueError, RuntimeError, TypeError) as error:
        raise StageError(f"{where}: {_line(error)}") from error


def _said(error: Any) -> str:
    """The sentence in the server's answer; its whole body where there is none."""
    try:
        document = json.loads(error.body)
        return str(document.get("message") or document.get("error") or error.reason)
    except (TypeError, ValueError, AttributeError):
        return str(error.reason)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
