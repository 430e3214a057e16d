"""What goes out as JSON (and, for the JSON dialects, what comes in)."""

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, FailFast, Field

from serving.detector.decision import Confidence
from serving.detector.labels import Label
from serving.http.decisions import BatchDecisionFields, DecisionFields, DecisionRecord

HeatmapType = Literal["image/png", "image/jpeg"]

MOST_NAME: Final = 256
"""Characters of a name or an id in a request."""


class _Out(BaseModel):
    model_config = ConfigDict(protected_namespaces=())


class VerdictFields(DecisionFields, _Out):
    """What is said of one image."""

    prediction: Label = Field(examples=["ai_generated"])
    probability: float = Field(
        ge=0.0,
        le=1.0,
        description="Calibrated probability of `ai_generated`, whatever the prediction.",
        examples=[0.973],
    )
    confidence: Confidence = Field(
        description="Band of the predicted class's probability; `low` outside of the trained domain.", examples=["high"]
    )
    inference_time_ms: float = Field(ge=0.0, description="Decoding and engine, without waiting.", examples=[8.41])


class Prediction(VerdictFields):
    """Answer of `/predict`."""

    model_version: str = Field(examples=["3"])
    threshold: float = Field(description="`probability` at or above it is called `ai_generated`.", examples=[0.5])
    record: DecisionRecord
    request_id: str


class Explanation(Prediction):
    """Answer of `/predict/explain`."""

    explained_class: Label = Field(description="The class the heatmap speaks for: the predicted one.")
    heatmap: list[list[float]] = Field(
        description="Signed Grad-CAM, rows of columns over the whole picture; positive cells spoke for the class."
    )
    heatmap_base64: str | None = Field(
        description="The picture with its heat on it, in base64; its longer side is 192 to 512 px. None with "
        "`overlay=false`."
    )
    heatmap_type: HeatmapType | None = Field(description="JPEG where the request's `Accept` names it.")


class ItemProblem(_Out):
    """Why one image of a batch has no verdict."""

    reason: str = Field(examples=["corrupt"])
    detail: str
    status: int = Field(description="The status `/predict` would have answered.", examples=[422])
    advice: str | None = Field(None, description="What the photo's owner can do, in plain words.")


class BatchItem(BatchDecisionFields, _Out):
    """One image of a batch: a verdict or an error, never both."""

    index: int
    filename: str
    prediction: Label | None = None
    probability: float | None = None
    confidence: Confidence | None = None
    inference_time_ms: float | None = None
    error: ItemProblem | None = None


class BatchPrediction(_Out):
    """Answer of `/predict/batch`; `results` stands in the order of the files."""

    results: list[BatchItem]
    total: int
    successful: int
    failed: int
    total_inference_time_ms: float
    model_version: str
    threshold: float
    record: DecisionRecord
    request_id: str


class ComparedVerdict(VerdictFields):
    """One model's verdict on the image."""

    model_version: str
    threshold: float
    record: DecisionRecord


class Comparison(_Out):
    """Answer of `/predict/compare`."""

    champion: ComparedVerdict
    challenger: ComparedVerdict
    agreement: bool
    probability_difference: float = Field(description="Challenger minus champion.")
    request_id: str


class ModelStatus(_Out):
    """Which model answers."""

    loaded: bool
    name: str | None = None
    version: str | None = None
    architecture: str | None = None
    digest: str | None = None
    uri: str | None = None
    loaded_at: str | None = None


class Health(_Out):
    """Answer of `/health`; with status 503 where `status` is not `ok`."""

    status: Literal["ok", "not_ready"]
    model: ModelStatus
    challenger: ModelStatus | None = None
    uptime_s: float
    queue: dict[str, int]
    drift: dict[str, Any] | None = Field(None, description="Summary of `/drift`; null where no baseline is loaded.")


class Probe(_Out):
    """Answer of a probe."""

    status: Literal["alive", "ready", "started"]


class ModelDescription(_Out):
    """Answer of `/model`: what is served and why it was let through."""

    name: str
    version: str
    architecture: str
    input_size: int
    labels: list[str]
    threshold: float
    digest: str
    metrics: dict[str, Any] | None = Field(description="Figures on the frozen test split, with 95 % intervals.")
    verdict: dict[str, Any] | None = Field(description="The quality gate's verdict; null for a bundle never gated.")
    release: dict[str, Any] | None
    manifest: dict[str, Any]


class Limits(_Out):
    """What a request may hold."""

    max_file_bytes: int
    max_batch_files: int
    max_batch_bytes: int = Field(description="All files of a batch together.")
    url_fetch: bool = Field(description="Whether POST /predict takes the address of a photo, of some hosts.")


class About(_Out):
    """Answer of `/`."""

    name: str
    description: str
    documentation: str
    privacy: str
    model_version: str | None
    caveat: str | None = Field(description="What whoever reads this model's verdicts has to know first.")
    takes_feedback: bool = Field(description="Whether POST /feedback keeps labels here.")
    limits: Limits


class Privacy(_Out):
    """Answer of `/privacy`."""

    images: str
    logs: str
    statistics: str


class VertexInstance(BaseModel):
    """One image of a Vertex AI request."""

    b64: str = Field(description="The image file in base64.")


class PhotoAddress(BaseModel):
    """A photo by its address instead of its bytes."""

    model_config = ConfigDict(extra="forbid")

    url: str = Field(
        min_length=1, max_length=4096, description="http or https.", examples=["https://cdn.shop.example/1.jpg"]
    )


class VertexRequest(BaseModel):
    """Body of the Vertex AI custom container contract."""

    instances: Annotated[list[VertexInstance], FailFast()] = Field(min_length=1)
    parameters: dict[str, Any] | None = None


class VertexPrediction(VerdictFields):
    """One image's verdict in Vertex AI's answer."""

    model_version: str
    threshold: float
    record: DecisionRecord
    request_id: str = Field(description="For POST /feedback, with `item`; Vertex AI passes no header on.")
    item: int = Field(description="Position among the instances.")


class VertexResponse(_Out):
    """Answer of the Vertex AI custom container contract."""

    predictions: list[VertexPrediction]


class TensorMetadata(_Out):
    """A tensor's name, type and shape in the Open Inference Protocol; -1 is any size."""

    name: str
    datatype: str
    shape: list[int]


class V2ModelMetadata(_Out):
    """`GET /v2/models/{name}`."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class V2ServerMetadata(_Out):
    """`GET /v2`."""

    name: str
    version: str
    extensions: list[str]


class V2Tensor(_Out):
    """A tensor of the Open Inference Protocol."""

    name: str = Field(max_length=MOST_NAME)
    datatype: str = Field(max_length=MOST_NAME)
    shape: Annotated[list[int], FailFast()] = Field(max_length=8)
    data: list[Any] | None = None
    parameters: dict[str, Any] | None = None


class V2RequestedOutput(BaseModel):
    """An output the client asks for."""

    name: str = Field(max_length=MOST_NAME)
    parameters: dict[str, Any] | None = None


class V2Request(BaseModel):
    """Body of an Open Inference Protocol V2 inference request."""

    id: str | None = Field(None, max_length=MOST_NAME)
    inputs: Annotated[list[V2Tensor], FailFast()] = Field(min_length=1, max_length=1)
    outputs: list[V2RequestedOutput] | None = Field(None, max_length=16)
    parameters: dict[str, Any] | None = None


class V2Response(_Out):
    """Answer of an Open Inference Protocol V2 inference request."""

    model_name: str
    model_version: str
    id: str | None = None
    parameters: dict[str, str] = Field(
        default={},
        description="`request_id`: for POST /feedback, where `item` is the position in the tensor; `record`: the "
        "decision record of the other dialects as JSON.",
    )
    outputs: list[V2Tensor]


class V2Live(_Out):
    """`GET /v2/health/live`."""

    live: bool


class V2Ready(_Out):
    """`GET /v2/health/ready` and `/v2/models/{name}/ready`."""

    ready: bool
    name: str | None = None
