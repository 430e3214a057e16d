"""The decision, its reasons and its evidence as JSON: the same fields in every dialect."""

import orjson
from pydantic import BaseModel, ConfigDict, Field

from serving.detector.conclusion import Conclusion, Decision, ReasonCode
from serving.detector.domain import SignalName
from serving.provenance.record import Declared, Listing, SourceCode, Where


class DecisionReason(BaseModel):
    """Why the photo was decided so."""

    code: ReasonCode = Field(description="Stable, for programs.", examples=["score_ai"])
    sentence: str = Field(description="For people; equal evidence gives equal words.")


class DomainSignal(BaseModel):
    """A property of the photo beside the range of the training's."""

    name: SignalName
    value: float
    low: float | None
    high: float | None
    inside: bool


class DomainFields(BaseModel):
    """Whether the photo is of the kind that the model was trained on."""

    inside: bool = Field(description="Where false, the score says nothing: the decision is `review`, confidence `low`.")
    signals: list[DomainSignal] = Field(description="Empty for a bundle that does not know its domain.")


class ProvenanceSource(BaseModel):
    """A statement found in the file."""

    code: SourceCode
    where: Where
    declares: Declared


class ContentCredentials(BaseModel):
    """The file's C2PA manifest; each property apart, for none implies another."""

    present: bool
    checked: bool = Field(description="False where the verifier is not installed or the manifest is not in the file.")
    intact: bool = Field(description="Signature and hash fit this file.")
    broken: bool = Field(description="A hash or the signature does not fit: changed after signing.")
    trusted: bool = Field(description="The signer leads to the configured trust list.")
    remote: bool = Field(description="The file only points to a manifest elsewhere; it is never fetched.")
    declared: Declared


class ProvenanceFields(BaseModel):
    """What the file says of its own making; a file that says nothing may be anything."""

    declared: Declared
    sources: list[ProvenanceSource]
    c2pa: ContentCredentials
    listing: Listing


class DecisionFields(BaseModel):
    """What to do with the photo, and why."""

    decision: Decision = Field(
        description="`prediction` and `probability` are the pixels' alone; this also weighs the file and the domain."
    )
    reasons: list[DecisionReason] = Field(description="The weightiest first.")
    domain: DomainFields
    provenance: ProvenanceFields
    image_sha256: str = Field(description="Of the file as it came.", min_length=64, max_length=64)


class BatchDecisionFields(BaseModel):
    """The same for an item that may have an error instead."""

    decision: Decision | None = None
    reasons: list[DecisionReason] | None = None
    domain: DomainFields | None = None
    provenance: ProvenanceFields | None = None
    image_sha256: str | None = None


class ErrorRate(BaseModel):
    """A share with its 95 % interval; a bound is null where none was computed."""

    value: float
    low: float | None = None
    high: float | None = None


class ErrorRates(BaseModel):
    """How often the model's `prediction` was wrong on the frozen test split, as the quality gate saw it."""

    false_alarms: ErrorRate | None = Field(description="Share of real photos called `ai_generated`.")
    misses: ErrorRate | None = Field(description="Share of generated photos called `real`.")
    test_images: int | None = None


class Thresholds(BaseModel):
    """On the calibrated probability of `ai_generated`, as they were in force."""

    prediction: float = Field(description="`prediction` is `ai_generated` from here on.")
    real_below: float = Field(description="`likely_real` below it.")
    ai_from: float = Field(description="`likely_ai` from here on; `review` between the two.")
    alpha_real: float | None = Field(
        description="At most this share of real photos like the held-out ones reaches `ai_from`; null: no promise."
    )
    alpha_ai: float | None = Field(
        description="At most this share of generated photos like the held-out ones lies below `real_below`."
    )


class DecisionRecord(BaseModel):
    """By what a decision was made: keep it with the case, beside `image_sha256`, `reasons` and `request_id`."""

    model_config = ConfigDict(protected_namespaces=())

    model_digest: str = Field(description="Content address of the bundle that judged.")
    thresholds: Thresholds
    error_rates: ErrorRates | None = Field(description="Null for a model that came without an evaluation.")
    caveat: str | None = Field(description="What the figures of this model do not say; null where nothing is noted.")


def decision_texts(found: Conclusion) -> dict[str, str]:
    """The same as one text each, for protocols of flat tensors: what is no text itself stands as JSON."""
    document = found.document()
    return {name: value if isinstance(value, str) else orjson.dumps(value).decode() for name, value in document.items()}
