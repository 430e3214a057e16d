"""The decision, its reasons and its evidence as JSON: the same fields in every dialect."""

import orjson
from pydantic import BaseModel, Field

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


def decision_texts(found: Conclusion) -> dict[str, str]:
    """The same as one text each, for protocols of flat tensors: what is no text itself stands as JSON."""
    document = found.document()
    return {name: value if isinstance(value, str) else orjson.dumps(value).decode() for name, value in document.items()}
