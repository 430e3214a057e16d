"""The route that takes true labels back."""

import asyncio
from typing import Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from serving.detector.labels import LABELS, label_id
from serving.feedback.store import Labeller
from serving.http.problems import ProblemError, responses
from serving.http.routes.predict import json_response
from serving.http.service import key_id, service_of
from serving.platform.errors import StateError, UnknownLabelError, UnknownPredictionError

router = APIRouter(tags=["feedback"])


class Feedback(BaseModel):
    """The true label of an image that was judged before."""

    model_config = ConfigDict(extra="forbid")

    request_id: str = Field(
        min_length=1, max_length=200, description="The server's own, as the prediction's answer had it."
    )
    label: str = Field(max_length=40, description="`real` or `ai_generated` (also `fake`, `ai`).", examples=["real"])
    item: int = Field(0, ge=0, le=1000, description="Position in a batch.")
    by: str = Field("", max_length=100, description="Who says so, for the record, beside the id of the API key.")


class FeedbackReceipt(BaseModel):
    """What became of a label."""

    model_config = ConfigDict(protected_namespaces=())

    status: Literal["recorded", "unchanged", "corrected"]
    request_id: str
    item: int
    prediction: str
    label: str
    correct: bool = Field(description="Whether the prediction was right.")
    probability: float
    model_version: str


@router.post(
    "/feedback",
    summary="Tell the true label of a judged photo",
    response_model=FeedbackReceipt,
    responses=responses(
        "malformed_request",
        "unauthorized",
        "not_found",
        "request_too_large",
        "unsupported_media_type",
        "invalid_request",
        "rate_limited",
        "internal_error",
        "feedback_disabled",
        "not_kept",
    ),
)
async def feedback(request: Request, body: Feedback) -> Response:
    """Keep the label for the next training set and for live precision and recall."""
    store = service_of(request).feedback
    if store is None:
        raise ProblemError("feedback_disabled", "this server keeps no feedback; set FEEDBACK_DIR")
    try:
        label = LABELS[label_id(body.label)]
    except UnknownLabelError as error:
        raise ProblemError("invalid_request", str(error)) from error
    try:
        who = Labeller(key_id(request), body.by)
        found = await asyncio.to_thread(store.record, body.request_id, body.item, label, who)
    except UnknownPredictionError as error:
        raise ProblemError("not_found", str(error)) from error
    except StateError as error:
        raise ProblemError("not_kept", str(error)) from error
    return json_response(
        FeedbackReceipt(
            status=found.status,
            request_id=body.request_id,
            item=body.item,
            prediction=found.prediction,
            label=found.label,
            correct=found.prediction == found.label,
            probability=found.probability,
            model_version=found.model_version,
        )
    )
