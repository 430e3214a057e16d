"""Checks that ask the cloud before money is spent: credentials, project, buckets, images, quota. Nothing is changed."""

import json
import re
from typing import TYPE_CHECKING, Any, Final

from components.platform.google_cloud import access_token, connect, google_errors, patience
from pipelines.findings import Finding
from pipelines.image_code import MANIFESTS, other_code
from pipelines.settings.pipeline import PipelineConfig
from serving.platform.answers import PLAIN, read_answer
from serving.platform.cloud_storage import SCHEME, retry, split
from serving.platform.errors import SignInError, StageError, one_line
from serving.platform.google_identity import LOGIN
from serving.platform.mlflow_sign_in import credentials

if TYPE_CHECKING:
    import httpx

_TIMEOUT_S: Final = 10.0
_SAID_BYTES: Final = 65_536
_READ: Final = ("storage.objects.get", "storage.objects.list")
_WRITE: Final = "storage.objects.create"
_IMAGE: Final = re.compile(r"(?P<host>[^/]+)/(?P<repository>[^@]+)@(?P<digest>sha256:[0-9a-f]{64})")
_STAGES: Final = ("images.train", "images.pipeline")
"""Images that what is compiled here calls into."""
_GOOGLE_HOSTS: Final = re.compile(r"(.+-docker\.pkg\.dev|(.+\.)?gcr\.io)")
_QUOTAS: Final = {"NVIDIA_TESLA_T4": "nvidia_t4_gpus", "NVIDIA_L4": "nvidia_l4_gpus"}
"""In the names of Vertex AI's own quotas for training; Compute Engine's of the same accelerator is another one."""


def before_submission(config: PipelineConfig, results: str = "") -> list[Finding]:
    """What must hold for a run on Vertex AI and only the cloud can tell: buckets, images, quota.

    Args:
        config: of the run.
        results: where else the run writes.
    """
    return [
        *(_bucket(uri, needed, config) for uri, needed in _buckets(config, results).items()),
        *_images(config),
        *_quota(config),
    ]


def examine_cloud(config: PipelineConfig) -> list[Finding]:
    """The same for a person who asks, with credentials and project before it."""
    access = _access(config)
    if access[-1].status == "error":
        return access
    # a run that promotes nothing leaves the ledger alone; who asks here may be the one who promotes
    return [*access, *before_submission(config, config.deploy.ledger_path), *_registry(config)]


def _registry(config: PipelineConfig) -> list[Finding]:
    """Whether MLflow's server answers these credentials, by the question that each of its clients asks first."""
    import requests

    uri = config.tracking_uri.rstrip("/")
    if not uri.startswith(("http://", "https://")):
        return []
    subject = "tracking.uri"
    try:
        with requests.get(
            f"{uri}/api/2.0/mlflow/experiments/search?max_results=1",
            auth=credentials(uri),
            timeout=_TIMEOUT_S,
            allow_redirects=False,
            stream=True,
        ) as answer:
            status, said = answer.status_code, answer.raw.read(_SAID_BYTES, decode_content=True)
    except SignInError as error:
        return [Finding("error", subject, str(error))]
    except (requests.RequestException, OSError) as error:
        return [Finding("error", subject, f"{uri}: no answer ({one_line(error)}); is the MLflow server running?")]
    if status == requests.codes.ok:
        return [Finding("ok", subject, f"MLflow answers these credentials at {uri}")]
    return [Finding("error", subject, f"{uri}: HTTP {status}{_reason(said)}")]


def _reason(said: bytes) -> str:
    """What a server of ours says of a refusal; of Cloud Run's own, which is a page, what to do about it."""
    try:
        return f": {' '.join(str(json.loads(said)['message']).split())[:400]}"
    except (ValueError, KeyError, TypeError, RecursionError):
        return f"; sign in as one of Terraform's operators, whom aidetect bootstrap adds: {LOGIN}"


def _access(config: PipelineConfig) -> list[Finding]:
    """Whether Vertex AI lets these credentials see the project's pipelines."""
    from google.cloud.aiplatform_v1 import PipelineServiceClient

    vertex = config.vertex
    subject = f"project {vertex.project}"
    if not vertex.project:
        return [Finding("error", "project", "vertex.project is empty")]
    try:
        with google_errors("list the runs of Vertex AI"):
            client = connect(PipelineServiceClient, f"{vertex.region}-aiplatform.googleapis.com", vertex.api_endpoint)
            parent = f"projects/{vertex.project}/locations/{vertex.region}"
            request = {"parent": parent, "page_size": 1}
            pages = client.list_pipeline_jobs(request=request, retry=patience(_TIMEOUT_S), timeout=_TIMEOUT_S).pages
            next(iter(pages))
    except StageError as error:
        return [Finding("error", subject, str(error))]
    return [Finding("ok", subject, f"Vertex AI answers in {vertex.region}")]


def _buckets(config: PipelineConfig, results: str) -> dict[str, list[str]]:
    """Every bucket that a run touches, and what it does there."""
    written = [config.vertex.bucket, config.train.checkpoint_dir, results]
    written.append(config.deploy.ledger_path if config.deploy.auto else "")
    written.append(config.register_.bucket if config.register_.vertex else "")
    buckets: dict[str, list[str]] = {}
    for place in [*written, config.data.uri, config.evaluate.outside]:
        if place.startswith(SCHEME):
            bucket = f"{SCHEME}{split(place)[0]}"
            needed = [*_READ, *([_WRITE] if place in written else [])]
            buckets[bucket] = list(dict.fromkeys([*buckets.get(bucket, []), *needed]))
    return buckets


def _bucket(uri: str, needed: list[str], config: PipelineConfig) -> Finding:
    """Whether a bucket is there and may be used as the run will."""
    from google.api_core.exceptions import Forbidden, GoogleAPICallError, NotFound

    name = split(uri)[0]
    try:
        with google_errors(f"bucket {uri}"):
            from google.cloud import storage

            again = retry(_TIMEOUT_S)
            client = storage.Client(project=config.vertex.project or None)
            try:
                # what a run does first; needs no right on the bucket itself, unlike asking for its description
                list(client.list_blobs(name, max_results=1, retry=again, timeout=_TIMEOUT_S))
            except NotFound:
                return Finding(
                    "error", uri, "no such bucket; make it with Terraform (infra/terraform) or correct the name"
                )
            try:
                granted = client.bucket(name).test_iam_permissions(needed, timeout=_TIMEOUT_S, retry=again)
            except GoogleAPICallError as error:
                return Finding("warning", uri, f"is there; rights on it could not be asked ({error.message})")
    except StageError as error:
        if config.vertex.service_account and isinstance(error.__cause__, Forbidden):
            # who submits a run is another account than who runs it, and need not see what the run writes
            return Finding(
                "warning", uri, f"not looked at: {error}; {config.vertex.service_account} does the run's work"
            )
        return Finding("error", uri, str(error))
    missing = [permission for permission in needed if permission not in granted]
    if not missing:
        return Finding("ok", uri, f"is there and may be {'written' if _WRITE in needed else 'read'}")
    lacking = f"these credentials lack {', '.join(missing)}"
    if config.vertex.service_account:
        # the run has another identity than who submits it; whose rights cannot be asked
        return Finding("warning", uri, f"is there; {lacking}, {config.vertex.service_account} needs them")
    return Finding("error", uri, f"{lacking}; grant roles/storage.objectUser")


def _images(config: PipelineConfig) -> list[Finding]:
    import httpx

    # one for all: they stand in one registry, as a rule
    with httpx.Client(timeout=_TIMEOUT_S, follow_redirects=True) as client:
        return [_image(name, image, config, client) for name, image in config.named_images.items()]


def _image(subject: str, image: str, config: PipelineConfig, client: "httpx.Client") -> Finding:
    """Whether the registry holds the image that the spec names."""
    import httpx

    found = _IMAGE.fullmatch(image)
    if found is None:
        return Finding("warning", subject, f"{image} was not looked up: it is not HOST/NAME@sha256:DIGEST")
    host = found["host"]
    auth = None
    try:
        if _GOOGLE_HOSTS.fullmatch(host):
            auth = ("oauth2accesstoken", _token(config))
        scheme = "http" if host.partition(":")[0] in ("127.0.0.1", "localhost") else "https"
        repository = f"{scheme}://{host}/v2/{found['repository']}"
        manifest = f"{repository}/manifests/{found['digest']}"
        answer = client.request("HEAD", manifest, headers={"Accept": MANIFESTS}, auth=auth)
        other = (
            other_code(client, repository, found["digest"], auth) if answer.is_success and subject in _STAGES else ""
        )
    except (httpx.HTTPError, StageError) as error:
        return Finding("warning", subject, f"could not be looked up in {host}: {error}")
    if answer.status_code == httpx.codes.NOT_FOUND:
        return Finding("error", subject, f"{image} is not in its registry; build and push it, then pin its digest")
    if not answer.is_success:
        return Finding("warning", subject, f"could not be looked up in {host}: HTTP {answer.status_code}")
    return Finding("warning" if other else "ok", subject, other or f"is in {host}")


def _quota(config: PipelineConfig) -> list[Finding]:
    """Whether the project may train on as many accelerators, and spot CPUs, as the run asks for."""
    machine = config.machines.train
    # spot machines have quotas of their own; that of their CPUs is 1 in a project that never asked for more
    kind = "custom_model_training_preemptible" if machine.spot else "custom_model_training"
    wanted = {}
    if machine.accelerator_count and machine.accelerator in _QUOTAS:
        wanted[f"{kind}_{_QUOTAS[machine.accelerator]}"] = machine.accelerator_count * machine.nodes
    if machine.spot and machine.machine_type:
        wanted[f"{kind}_cpus"] = int(machine.machine_type.rpartition("-")[2]) * machine.nodes
    return [_limited(quota, count, config) for quota, count in wanted.items()]


def _limited(quota: str, count: int, config: PipelineConfig) -> Finding:
    import httpx

    vertex = config.vertex
    subject = f"quota {quota}"
    endpoint = vertex.quota_endpoint or "https://serviceusage.googleapis.com"
    metric = f"aiplatform.googleapis.com%2F{quota}"
    service = f"projects/{vertex.project}/services/aiplatform.googleapis.com"
    try:
        headers = {} if endpoint.startswith("http://") else {"Authorization": f"Bearer {_token(config)}"}
        url = f"{endpoint}/v1beta1/{service}/consumerQuotaMetrics/{metric}"
        with httpx.stream("GET", url, headers=headers | PLAIN, timeout=_TIMEOUT_S) as answer:
            answer.raise_for_status()
            limit = _limit(json.loads(read_answer(answer)), vertex.region)
    except (httpx.HTTPError, StageError, LookupError, AttributeError, TypeError, ValueError, RecursionError) as error:
        return Finding("warning", subject, f"not checked: {' '.join(str(error).split())}")
    if limit is None:
        return Finding("warning", subject, f"not checked: the answer names no limit for {vertex.region}")
    if 0 <= limit < count:
        return Finding(
            "error",
            subject,
            f"{limit} in {vertex.region}, the run needs {count}; ask for more under IAM & Admin, Quotas",
        )
    return Finding("ok", subject, f"{'unlimited' if limit < 0 else limit} in {vertex.region}, the run needs {count}")


def _limit(document: dict[str, Any], region: str) -> int | None:
    """The limit in force in a region; -1: none; the bucket without a region holds where none is named."""
    limits: dict[str, int] = {}
    for listed in document["consumerQuotaLimits"]:
        for bucket in listed.get("quotaBuckets", []):
            limits[bucket.get("dimensions", {}).get("region", "")] = int(bucket["effectiveLimit"])
    return limits.get(region, limits.get(""))


def _token(config: PipelineConfig) -> str:
    """An access token of the application default credentials.

    Raises:
        StageError: there are none, or this installation talks to a stand-in that gets none.
    """
    if config.vertex.api_endpoint.startswith("http://"):
        raise StageError("vertex.api_endpoint has no TLS, so no credentials are used")
    return access_token("fetch a token")
