"""Whether to retrain, why, and once: drift, age and new labels in; at most one started run out."""

import json
import math
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final, Literal, Protocol
from urllib.parse import urlsplit

from pydantic import BaseModel

from components.platform.cloud_storage import list_names, open_lines
from components.platform.google_cloud import access_token
from pipelines.retrain_state import NOT_STARTED, STARTING, History, Reason, Start
from pipelines.settings.operations import RetrainConfig
from serving.platform.answers import PLAIN, read_answer
from serving.platform.cloud_storage import SCHEME
from serving.platform.errors import RetrainError, one_line
from serving.platform.frozen import Section
from serving.platform.jsonlines import documents

DAY_S: Final = 86_400.0
HTTP_TIMEOUT_S: Final = 10.0
GOOGLE_MONITORING: Final = "monitoring.googleapis.com"
_ATTEMPTS: Final = 5
_LABEL_NAME: Final = re.compile(r"\d{8}T\d{6}Z-(.+-\d+)\.json")
"""Of a label that the service keeps in its bucket of evidence: when, and of which photo of which request."""


_RECALL: Final = re.compile(r'^aidetect_declared_recall\{bound="high"\} ([0-9.eE+-]+|NaN)$', re.MULTILINE)


class Evidence(Section):
    """What is known when deciding."""

    drift_state: Literal["unknown", "collecting", "ok", "drift", "alarm"] = "unknown"
    diagnosis: str = ""
    model_version: str = ""
    champion_age_days: float | None = None
    new_labels: int = 0
    declared_recall_high: float | None = None
    """Upper end of the interval of the share that the model recognises of uploads that declare themselves generated."""
    source: str = ""


class Decision(Section):
    """Whether to start a run now."""

    retrain: bool
    reason: Reason
    explanation: str
    considered: tuple[str, ...]
    """Each rule and what it found, in words."""
    key: str = ""


class StartedRun(Protocol):
    """What starting the pipeline gives back."""

    run_id: str

    @property
    def status(self) -> str:
        """How the run ended, or that it was submitted."""
        ...


class Outcome(Section):
    """A decision and the run it led to."""

    decision: Decision
    run_id: str = ""
    status: str = ""


def decide(evidence: Evidence, config: RetrainConfig, history: list[Start], now: float) -> Decision:
    """Judge the evidence; pure.

    Args:
        evidence: of the served model.
        config: limits.
        history: runs started before, in any order.
        now: Unix time.
    """
    version = evidence.model_version or "unknown"
    age, considered = evidence.champion_age_days, []
    wanted: list[tuple[Reason, str]] = []

    considered.append(f"drift: {evidence.drift_state}" + (f" ({evidence.diagnosis})" if evidence.diagnosis else ""))
    if evidence.drift_state == "alarm":
        wanted.append(("drift", f"drift alarm on version {version}: {evidence.diagnosis or 'two of three windows'}"))
    considered.append(f"age: {'unknown' if age is None else f'{age:.1f} days'}, limit {config.max_age_days:g}")
    if age is not None and age > config.max_age_days:
        wanted.append(("age", f"version {version} is {age:.0f} days old, the limit is {config.max_age_days:g}"))
    considered.append(f"new labels: {evidence.new_labels}, needed {config.min_new_labels}")
    if evidence.new_labels >= config.min_new_labels:
        wanted.append(("new_labels", f"{evidence.new_labels} new labels since version {version}"))
    recall = evidence.declared_recall_high
    considered.append(
        f"declared uploads recognised: {'unknown' if recall is None else f'at most {recall:.0%}'}, "
        f"wanted {config.min_declared_recall:.0%}"
    )
    if recall is not None and recall < config.min_declared_recall:
        wanted.append(
            (
                "declared_recall",
                f"version {version} recognises at most {recall:.0%} of uploads that declare themselves generated",
            )
        )

    if not wanted:
        return Decision(retrain=False, reason="none", explanation="nothing calls for it", considered=tuple(considered))
    last = max(history, key=lambda start: start.at, default=None)
    if last is not None and now - last.at < config.cool_down_hours * 3600:
        hours = (now - last.at) / 3600
        text = (
            f"{wanted[0][1]}; but run {last.run_id or last.status} began {hours:.1f} h ago for {last.reason} "
            f"(cool-down {config.cool_down_hours:g} h)"
        )
        return Decision(retrain=False, reason="none", explanation=text, considered=tuple(considered))
    answered = {start.key: start for start in history if now - start.at < config.retry_days * DAY_S}
    for reason, text in wanted:
        key = f"{reason}:{version}"
        if key not in answered:
            return Decision(retrain=True, reason=reason, explanation=text, considered=tuple(considered), key=key)
    before = answered[f"{wanted[0][0]}:{version}"]
    text = (
        f"{wanted[0][1]}; but run {before.run_id or before.status} already answered that less than "
        f"{config.retry_days:g} days ago, and version {version} still serves: see why"
    )
    return Decision(retrain=False, reason="none", explanation=text, considered=tuple(considered))


def gather(url: str = "", prometheus: str = "", feedback_path: str = "", api_key: str = "") -> Evidence:
    """Ask a server, or the Prometheus that watches all of its replicas.

    Raises:
        RetrainError: neither was given, or the one that was does not answer as expected.
    """
    if prometheus:
        return _from_prometheus(prometheus.rstrip("/"), feedback_path)
    if url:
        return _from_server(url.rstrip("/"), feedback_path, api_key)
    raise RetrainError("nowhere to read drift from; give --url of a server or --prometheus")


def retrain(
    config: RetrainConfig,
    evidence: Evidence,
    start: Callable[[Reason, str], StartedRun],
    dry_run: bool = False,
    now: Callable[[], float] = time.time,
) -> Outcome:
    """Decide, and start at most one run. Two callers at once start one: the second sees the first's record.

    Args:
        config: limits and where the record is.
        evidence: from `gather`.
        start: starts the pipeline, given the reason and its explanation.
        dry_run: decide only; nothing is started or written.
        now: the clock.

    Raises:
        RetrainError: the record cannot be read or written.
    """
    history = History(config.state_path)
    if dry_run:
        return Outcome(decision=decide(evidence, config, history.read(), now()))
    with history.exclusive():
        for _ in range(_ATTEMPTS):
            decision = decide(evidence, config, history.read(), now())
            if not decision.retrain:
                return Outcome(decision=decision)
            begun = Start(
                at=now(), reason=decision.reason, explanation=decision.explanation, key=decision.key, status=STARTING
            )
            # written first: a process that is killed meanwhile must not lead to a second run
            if history.claim(begun):
                break
        else:
            raise RetrainError(f"{config.state_path}: others wrote to it {_ATTEMPTS} times; try again")
        try:
            run = start(decision.reason, decision.explanation)
        except BaseException:
            history.append(begun.model_copy(update={"status": NOT_STARTED}))
            raise
        history.append(begun.model_copy(update={"run_id": run.run_id, "status": run.status}))
    return Outcome(decision=decision, run_id=run.run_id, status=run.status)


def _from_server(url: str, feedback_path: str, api_key: str) -> Evidence:
    headers = {"X-API-Key": api_key} if api_key else {}
    drift = _get(f"{url}/drift", headers=headers)
    model = _get(f"{url}/model", headers=headers)
    try:
        created = datetime.fromisoformat(model["manifest"]["provenance"]["created_at"])
        if created.tzinfo is None:
            created = created.replace(tzinfo=UTC)
        return Evidence(
            drift_state=drift["state"],
            diagnosis=drift["diagnosis"],
            model_version=drift["model_version"],
            champion_age_days=(time.time() - created.timestamp()) / DAY_S,
            new_labels=_labels_since(feedback_path, created.timestamp()),
            declared_recall_high=_declared_recall(url),
            source=url,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise RetrainError(f"{url}: not the answers of this project's server ({error})") from error


def _declared_recall(url: str) -> float | None:
    """The upper bound that a server's own metrics tell; None where it tells none, or keeps them for others."""
    import httpx

    try:
        found = _RECALL.search(_read(f"{url}/metrics").decode())
        return _known(found[1]) if found else None
    except (httpx.HTTPError, ValueError):
        return None


def _read(url: str, **arguments: Any) -> bytes:
    """An answer's body, as it was sent.

    Raises:
        httpx.HTTPError: there is none, or a refusal.
        ValueError: it is longer than any of ours, or does not end.
    """
    import httpx

    headers = {**arguments.pop("headers", {}), **PLAIN}
    with httpx.stream("GET", url, timeout=HTTP_TIMEOUT_S, headers=headers, **arguments) as answer:
        answer.raise_for_status()
        return read_answer(answer)


def _known(value: str) -> float | None:
    """A sample's value; None where it is not a number: nothing was counted of the model that serves now."""
    number = float(value)
    return None if math.isnan(number) else number


def _from_prometheus(base: str, feedback_path: str) -> Evidence:
    headers = _signed_in(base)

    def query(expression: str) -> list[dict[str, Any]]:
        answer = _get(f"{base}/api/v1/query", params={"query": expression}, headers=headers)
        try:
            return list(answer["data"]["result"])
        except (KeyError, TypeError) as error:
            raise RetrainError(f"{base}: not a Prometheus server's answer") from error

    levels = query("max(aidetect_drift_alert)")
    if not levels:
        raise RetrainError(f"{base}: has no aidetect_drift_alert; does it scrape the server?")
    states: dict[int, Literal["ok", "drift", "alarm"]] = {0: "ok", 1: "drift", 2: "alarm"}
    moved = query("topk(3, max by (signal) (aidetect_drift_score) > 0.05)")
    infos = query("topk(1, max by (version) (aidetect_model_info == 1))")
    created = query("min(aidetect_model_created_timestamp_seconds > 0)")
    trained = float(created[0]["value"][1]) if created else None
    recall = query('max(aidetect_declared_recall{bound="high"})')
    level = int(float(levels[0]["value"][1]))
    names = ", ".join(f"{row['metric']['signal']} {float(row['value'][1]):.2f}" for row in moved)
    return Evidence(
        drift_state=states[level],
        diagnosis=f"largest distances: {names}" if level and names else "",
        model_version=infos[0]["metric"].get("version", "") if infos else "",
        champion_age_days=None if trained is None else (time.time() - trained) / DAY_S,
        new_labels=0 if trained is None else _labels_since(feedback_path, trained),
        declared_recall_high=_known(recall[0]["value"][1]) if recall else None,
        source=base,
    )


def _signed_in(url: str) -> dict[str, str]:
    """What Managed Service for Prometheus asks of who reads it; nothing for a Prometheus of one's own."""
    address = urlsplit(url)
    if address.scheme != "https" or address.hostname != GOOGLE_MONITORING:
        return {}
    return {"Authorization": f"Bearer {access_token(f'read {address.hostname}')}"}


def _get(url: str, **arguments: Any) -> Any:
    import httpx

    try:
        return json.loads(_read(url, **arguments))
    except httpx.HTTPStatusError as error:
        status = error.response.status_code
        hint = {401: "; set the API key", 403: "; grant roles/monitoring.viewer"}.get(status, "")
        raise RetrainError(f"{url}: HTTP {status}{hint}") from error
    except (httpx.HTTPError, ValueError, RecursionError) as error:
        raise RetrainError(f"{url}: no answer ({one_line(error)}); is it running?") from error


class _Label(BaseModel):
    """What counts of a line of the server's `feedback.jsonl`."""

    at: datetime
    request_id: str
    item: int


def _labels_since(feedback_path: str, when: float) -> int:
    if not feedback_path:
        return 0
    if feedback_path.startswith(SCHEME) and feedback_path.endswith("/"):
        start = datetime.fromtimestamp(when, UTC).strftime("%Y%m%dT%H%M%SZ")
        return len({found[1] for name in list_names(feedback_path, start) if (found := _LABEL_NAME.fullmatch(name))})
    lines = open_lines(feedback_path, "set retrain.feedback_path to the server's feedback.jsonl")
    labels = documents(lines.read(), _Label, lines.where)
    return len({(label.request_id, label.item) for label in labels if label.at.timestamp() > when})
