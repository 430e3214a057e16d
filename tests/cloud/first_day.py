"""The first day on Google Cloud, step by step: who does what, and every permission that Google asks for on the way.

`python -m tests.cloud.first_day` prints the table for both environments; `make rehearse` does so before it begins.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass

from tests.fakes.policy import Plan, Policy, RefusedError, api_of, plan_of

PROJECT, SERVICE = "example-project", "ai-product-photo-detector"
CLAIMS = {
    # as GitHub spells it for repositories made or renamed since July 2026
    "sub": "repo:example@4711/ai-product-photo-detector@123456789:environment:production",
    "repository": "example/ai-product-photo-detector",
    "repository_id": "123456789",
    "ref": "refs/heads/main",
    "job_workflow_ref": "example/ai-product-photo-detector/.github/workflows/images.yml@refs/heads/main",
}
ENVIRONMENTS = {"deploy": "production", "train": "training", "preview": "preview"}
"""Account -> the environment of its jobs; who builds has none."""
Act = Callable[[Policy], None]


@dataclass(frozen=True)
class Step:
    """One command of the day."""

    account: str
    name: str
    acts: tuple[Act, ...]


@dataclass(frozen=True)
class Told:
    """How it went; `answer` is what Google refused it with."""

    account: str
    name: str
    answer: str = ""


def applies(policy: Policy) -> None:
    """Terraform makes everything, each resource by an API that must be enabled."""
    for found in policy.plan.resources:
        if found["type"] != "google_project_service":
            policy.require("serviceusage.services.use", api=api_of(found["type"]))


def needs(permission: str, resource: str = "project", api: str = "") -> Act:
    """A call that asks for one permission."""
    return lambda policy: policy.require(permission, resource, api)


def account(name: str) -> str:
    """Resource name of a service account."""
    return f"account aidetect-{name}@{PROJECT}.iam.gserviceaccount.com"


def bucket(use: str) -> str:
    """Resource name of a bucket."""
    return f"bucket {PROJECT}-aidetect-{use}"


def signs_in(name: str) -> Act:
    """A job of GitHub's takes an account on."""

    def act(policy: Policy) -> None:
        for api in ("sts", "iamcredentials"):
            if api not in policy.plan.apis:
                raise RefusedError(403, f"{api}.googleapis.com has not been used in project {PROJECT} before")
        environment = {"environment": ENVIRONMENTS[name]} if name in ENVIRONMENTS else {}
        if name == "preview":
            environment["ref"] = "refs/pull/7/merge"
        policy.sign_in({**CLAIMS, **environment}, name)

    return act


def reads(use: str) -> tuple[Act, ...]:
    """Lists a bucket and reads from it."""
    return needs("storage.objects.list", bucket(use)), needs("storage.objects.get", bucket(use))


def writes(use: str) -> tuple[Act, ...]:
    """Makes objects and writes others anew."""
    return needs("storage.objects.create", bucket(use)), needs("storage.objects.delete", bucket(use))


def key(secret: str) -> Act:
    """Reads the latest version of a secret, which must be there."""

    def act(policy: Policy) -> None:
        policy.require("secretmanager.versions.access", f"secret {secret}")
        policy.version_of(secret)

    return act


ALERTS = "topic aidetect-alerts"
AGENT = "service-123456789012@gcp-sa-monitoring-notification.iam.gserviceaccount.com"
"""Monitoring's own, by the number of the project."""
IMAGES = f"repository {SERVICE}"
PUSHES = needs("artifactregistry.repositories.uploadArtifacts", IMAGES)
PULLS = needs("artifactregistry.repositories.downloadArtifacts", IMAGES)


def updates(service: str, runs_as: str) -> tuple[Act, ...]:
    """A new revision: the service, its account, its image, and the operation that says how it went."""
    return (
        needs("run.services.get", f"service {service}"),
        needs("run.operations.get"),
        needs("run.services.update", f"service {service}"),
        needs("iam.serviceAccounts.actAs", account(runs_as)),
        PULLS,
    )


def calls_the_service(service: str) -> Act:
    """A request that Cloud Run lets through."""
    return needs("run.routes.invoke", f"service {service}")


MLFLOW = calls_the_service("aidetect-mlflow")


def deploys(environment: str) -> tuple[Act, ...]:
    """A version on its way to users; a private service lets in whom it names, for the smoke test too."""
    return (
        *updates(SERVICE, "serving"),
        key("aidetect-api-keys"),
        *((calls_the_service(SERVICE),) if environment == "dev" else ()),
        needs("aiplatform.models.list"),
        needs("aiplatform.models.update"),
    )


def lives_on() -> list[Step]:
    """What nobody starts by hand: MLflow's server, evidence of the instances, and an alert on its way to a training."""
    return [
        Step(
            "mlflow",
            "MLflow starts: its database, its files",
            (
                key("aidetect-mlflow-database"),
                needs("cloudsql.instances.connect", api="sqladmin"),
                *reads("mlflow"),
                *writes("mlflow"),
            ),
        ),
        Step("operator@example.test", "aidetect models, from one's own machine", (MLFLOW,)),
        Step("train", "MLflow: a run is recorded", (signs_in("train"), MLFLOW)),
        Step("pipeline", "MLflow: a version is made, and aliased", (MLFLOW,)),
        Step("deploy", "MLflow: the champion's alias moves", (signs_in("deploy"), MLFLOW)),
        Step("serving", "MLflow: models:/NAME@ALIAS is looked up", (MLFLOW,)),
        Step(
            "serving",
            "instances tell each other windows and answers, and keep labels",
            (*reads("evidence"), needs("storage.objects.create", bucket("evidence"))),
        ),
        Step(AGENT, "an incident of Cloud Monitoring is published", (needs("pubsub.topics.publish", ALERTS),)),
        Step("alerts", "Pub/Sub brings it to the receiver", (calls_the_service("aidetect-retrain"),)),
        Step(
            "retrain",
            "aidetect retrain --prometheus --dispatch",
            (
                key("aidetect-github-token"),
                needs("monitoring.timeSeries.list"),
                needs("storage.objects.list", bucket("evidence")),
                needs("storage.objects.get", bucket("pipelines")),
                *writes("pipelines"),
            ),
        ),
    ]


def first_day(environment: str) -> list[Step]:
    """Everything, in the order of docs/DEPLOYMENT.md."""
    private = environment == "dev"
    invoke, look = (calls_the_service(SERVICE),), (calls_the_service(f"{SERVICE}-preview"),)
    submits = (needs("aiplatform.pipelineJobs.create"), needs("iam.serviceAccounts.actAs", account("pipeline")))
    registers = (
        *reads("models"),
        *writes("models"),
        needs("aiplatform.models.list"),
        needs("aiplatform.models.upload"),
        needs("aiplatform.modelEvaluations.list"),
        needs("aiplatform.modelEvaluations.import"),
    )
    promotes = (signs_in("deploy"), *reads("models"), *reads("records"), *writes("records"), *deploys(environment))
    return [
        Step("owner", "terraform apply", (applies, key("aidetect-api-keys"))),
        Step(
            "serving", "the service starts on the sample, then on a model", (key("aidetect-api-keys"), *reads("models"))
        ),
        Step("serving", "the service reads its settings", (key(f"{SERVICE}-settings"),)),
        Step(
            "serving", "logs and metrics", (needs("logging.logEntries.create"), needs("monitoring.timeSeries.create"))
        ),
        Step(
            "build",
            "images.yml pushes",
            (signs_in("build"), needs("artifactregistry.repositories.uploadArtifacts", IMAGES)),
        ),
        Step(
            "train",
            "model-training.yml: aidetect run --on vertex --sync",
            (
                signs_in("train"),
                *reads("data"),
                PULLS,
                needs("serviceusage.quotas.get"),
                needs("resourcemanager.projects.get"),
                *submits,
                needs("aiplatform.pipelineJobs.get"),
                *reads("pipelines"),
            ),
        ),
        Step(
            "pipeline",
            "verify_data, train, evaluate, quality_gate",
            (*reads("data"), *reads("pipelines"), *writes("pipelines"), needs("logging.logEntries.create")),
        ),
        Step(
            "pipeline",
            "train on several or spot machines: a custom job",
            (
                *(needs(f"aiplatform.customJobs.{does}") for does in ("list", "create", "get", "cancel")),
                needs("iam.serviceAccounts.actAs", account("pipeline")),
            ),
        ),
        Step("pipeline", "register", registers),
        Step("deploy", "model-training.yml: aidetect deploy, the challenger", promotes),
        Step("pipeline", "score a catalogue: plan and summary are replaced", (*reads("data"), *writes("pipelines"))),
        Step(
            "deploy",
            "cd.yml: aidetect deploy --image, canary, promotion",
            (*promotes, PULLS),
        ),
        Step("deploy", "cd.yml: aidetect smoke", (signs_in("deploy"), key("aidetect-api-keys"))),
        Step("deploy", "cd.yml: aidetect rollback", promotes),
        Step(
            "train",
            "weekly: aidetect retrain, its record",
            (
                signs_in("train"),
                *reads("pipelines"),
                *writes("pipelines"),
                needs("storage.objects.list", bucket("evidence")),
            ),
        ),
        Step("owner", "aidetect schedule apply", (needs("aiplatform.schedules.create"),)),
        Step(
            "preview",
            "pr-preview.yml: deploy --tag --no-traffic",
            (
                signs_in("preview"),
                *reads("models"),
                *reads("records"),
                PULLS,
                *updates(f"{SERVICE}-preview", "sandbox"),
                key("aidetect-preview-keys"),
                *(look if private else ()),
            ),
        ),
        Step(
            "sandbox",
            "the preview starts",
            (
                key("aidetect-preview-keys"),
                key(f"{SERVICE}-preview-settings"),
                *reads("models"),
                needs("logging.logEntries.create"),
            ),
        ),
        *([] if private else [Step("anybody", "users call the service, reviewers its preview", (*invoke, *look))]),
        *lives_on(),
        Step("owner", "second terraform apply", (needs("run.services.update"),)),
    ]


def play(plan: Plan, environment: str) -> list[Told]:
    """Every step, each in its own account; a refusal ends the step, not the day."""
    told = []
    for step in first_day(environment):
        policy = Policy(plan)
        try:
            if step.account == "anybody":
                policy.caller, policy.step = "user:anybody", step.name
            else:
                policy.as_account(step.account, step.name)
            for act in step.acts:
                act(policy)
        except RefusedError as refused:
            told.append(Told(step.account, step.name, f"{refused.code} {refused}"))
        else:
            told.append(Told(step.account, step.name))
    return told


def main() -> int:
    """Print the table; 1 where a step is refused."""
    refused = 0
    for environment in ("dev", "prod"):
        sys.stdout.write(f"first day on Google Cloud, environment {environment}\n")
        for step in play(plan_of(environment), environment):
            who = step.account.partition("@")[0]
            sys.stdout.write(f"  {who:<20} {step.name:<64} {step.answer or 'works'}\n")
            refused += bool(step.answer)
    return int(bool(refused))


if __name__ == "__main__":
    sys.exit(main())
