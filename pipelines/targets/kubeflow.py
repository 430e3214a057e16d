"""Run the compiled spec on an open-source Kubeflow Pipelines server."""

import json
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pipelines.compile import PIPELINE_FILE
from pipelines.config import PipelineConfig
from pipelines.places import stage_of
from pipelines.runs import RunRecord, StageStatus
from pipelines.targets.cloud_outputs import collect_tracked, conclude_succeeded
from pipelines.targets.local import Listener
from serving.platform.errors import StageError

if TYPE_CHECKING:
    import kfp
    from google.api_core.retry import Retry

_FIXES: Final = {
    401: "; log in to the server's gateway",
    403: "; ask for access to kubeflow.namespace",
    404: "; check kubeflow.host and kubeflow.namespace",
    429: "; too many requests, wait and try again",
    503: "; the server is starting or overloaded, try again",
}
_ENDED: Final = frozenset({"SUCCEEDED", "FAILED", "CANCELED", "SKIPPED"})
_STAGE_STATES: Final[dict[str, StageStatus]] = {
    "RUNNING": "running",
    "SUCCEEDED": "succeeded",
    "FAILED": "failed",
    "CANCELED": "failed",
}


def run(
    record: RunRecord, config: PipelineConfig, parameters: dict[str, Any], listener: Listener, sync: bool
) -> RunRecord:
    """Submit the spec in the record's folder, and with `sync` wait for its end.

    Raises:
        StageError: the server is not configured, refuses the run or cannot be reached.
    """
    client = connect(config)
    with server_errors(config), package(json.loads((Path(record.folder) / PIPELINE_FILE).read_text())) as file:
        submitted = client.create_run_from_pipeline_package(
            str(file),
            arguments=parameters,
            run_name=f"{config.tracking.model_name}-{record.run_id}",
            experiment_name=config.kubeflow.experiment,
            namespace=config.kubeflow.namespace or None,
            pipeline_root=config.kubeflow.pipeline_root or None,
            enable_caching=False,
            service_account=config.kubeflow.service_account or None,
        )
    record.status, record.resource = "submitted", str(submitted.run_id)
    record.link = f"{config.kubeflow.host.rstrip('/')}/#/runs/details/{submitted.run_id}"
    record.save()
    listener(record, f"submitted: {record.link}")
    return follow(record, config, listener) if sync else record


def follow(record: RunRecord, config: PipelineConfig, listener: Listener) -> RunRecord:
    """Follow a submitted run to its end, telling the listener of every stage that changes.

    Raises:
        StageError: the server refuses or cannot be reached.
    """
    client = connect(config)
    while True:
        notes = _look(client, record, config)
        listener(record, "")
        if record.status != "submitted":
            break
        time.sleep(config.kubeflow.poll_s)
    for note in notes:
        listener(record, f"note: {note}")
    return record


def refresh(record: RunRecord, config: PipelineConfig) -> list[str]:
    """Ask the server once how a submitted run stands.

    Returns:
        What of an ended run's results could not be read, one line each.

    Raises:
        StageError: the server refuses or cannot be reached.
    """
    return _look(connect(config), record, config)


def cancel(record: RunRecord, config: PipelineConfig) -> None:
    """Ask the server to terminate a run.

    Raises:
        StageError: the server refuses or cannot be reached.
    """
    client = connect(config)
    with server_errors(config):
        client.terminate_run(record.resource)


def connect(config: PipelineConfig) -> "kfp.Client":
    """A client of the configured server.

    Raises:
        StageError: no server is configured, or it does not answer.
    """
    if not config.kubeflow.host:
        raise StageError("set kubeflow.host to the address of a Kubeflow Pipelines server, e.g. http://localhost:8888")
    import kfp

    with server_errors(config):
        return kfp.Client(host=config.kubeflow.host, namespace=config.kubeflow.namespace or "kubeflow")


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
    except StageError:
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


def _look(client: "kfp.Client", record: RunRecord, config: PipelineConfig) -> list[str]:
    """Write how the run stands into its record."""
    with server_errors(config):
        found = patience(config.kubeflow.request_timeout_s)(client.get_run)(record.resource)
    _update(record, found)
    notes: list[str] = []
    if found.created_at:
        until = found.finished_at if found.state in _ENDED and found.finished_at else datetime.now(UTC)
        record.seconds = round(max(0.0, (until - found.created_at).total_seconds()), 2)
    if found.state in _ENDED:
        notes = collect_tracked(record, config)
        _conclude(record, found)
    record.save()
    return notes


def _update(record: RunRecord, found: Any) -> None:
    details = found.run_details.task_details if found.run_details else None
    for detail in details or []:
        stage = stage_of(detail.display_name or "")
        if stage is not None:
            record.stage(stage).status = _STAGE_STATES.get(detail.state, record.stage(stage).status)


def _conclude(record: RunRecord, found: Any) -> None:
    if found.state == "SUCCEEDED":
        conclude_succeeded(record)
    elif found.state == "CANCELED":
        record.status, record.error = "interrupted", "cancelled"
    else:
        failed = [stage.name for stage in record.stages if stage.status == "failed"]
        where = f"{failed[0]}: " if failed else ""
        reason = getattr(found.error, "message", "") if found.error else ""
        record.status, record.error = "failed", where + (reason or "failed; see the run's page")


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
