"""The model now in service, found in the registry: what the candidate has to hold its own against."""

from dataclasses import dataclass
from pathlib import Path

from components.artifacts.context import RunContext
from components.evaluate.config import EvaluateConfig
from serving.detector.bundle import Manifest
from serving.detector.detector import Detector
from serving.platform.errors import BundleError, ModelNotFoundError, RegistryMissingError, StageError, one_line
from serving.registry import resolve

ABSENT_CODES = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
"""MLflow's answers for a model and for an alias that were never made."""


@dataclass(frozen=True)
class Champion:
    """A loaded champion and the version it goes by."""

    detector: Detector
    version: str


def find_champion(config: EvaluateConfig, context: RunContext, cache_dir: Path) -> tuple[Champion | None, str]:
    """The champion, or None with one sentence that says why there is none to compare with.

    Raises:
        StageError: there is a champion, but it cannot be fetched or scored. To pass over it in silence would let a
            worse model through.
    """
    if not config.champion_uri:
        return None, "No comparison: evaluate.champion_uri is empty."
    uri = config.champion_uri.format(model_name=context.model_name)
    if uri.startswith("models:/") and not context.tracking_uri:
        return None, f"No comparison: no registry is configured to look for {uri} in."
    way_out = "or set evaluate.champion_uri to '' to judge the candidate without it"
    try:
        found = resolve(uri, cache_dir, context.tracking_uri)
        return Champion(Detector.load(found.folder), found.version), ""
    except BundleError as error:
        raise StageError(f"champion {uri} cannot be scored: {error}; repair it, {way_out}") from error
    except RegistryMissingError:
        return None, f"No champion yet: {uri} is not in the registry."
    except _fetch_errors(uri) as error:
        cause = error.__cause__ or error
        if getattr(cause, "error_code", "") in ABSENT_CODES:
            return None, f"No champion yet: {uri} is not in the registry."
        reason = one_line(cause)
        raise StageError(f"champion {uri} cannot be fetched: {reason}; repair it, {way_out}") from error


def _fetch_errors(uri: str) -> tuple[type[Exception], ...]:
    if not uri.startswith("models:/"):
        return ModelNotFoundError, OSError
    from mlflow.exceptions import MlflowException

    return ModelNotFoundError, OSError, MlflowException


def identical(first: Manifest, second: Manifest) -> bool:
    """Whether two bundles have the same content address."""
    return first.digest == second.digest
