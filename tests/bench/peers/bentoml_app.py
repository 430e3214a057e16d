"""BentoML as its guide has it: one worker, two threads; with BATCH above 1 a batchable model service in front of which
an API service stands, both in one process.

MODEL is the graph.
"""

import os
from typing import Annotated

import bentoml
import numpy as np
import onnxruntime as ort
from bentoml.validators import ContentType
from PIL import Image

PX = 224
BATCH = int(os.environ["BATCH"])


def session(threads):
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    # a thread that spins between its shares takes the time of those that decode
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(os.environ["MODEL"], options)


def pixels(picture):
    return np.asarray(picture.convert("RGB").resize((PX, PX), Image.Resampling.BILINEAR))


def run(engine, batch):
    logits = engine.run(["logit"], {engine.get_inputs()[0].name: batch})[0].reshape(-1)
    return 1 / (1 + np.exp(-logits))


@bentoml.service(workers=1, threads=2, traffic={"timeout": 60})
class Plain:
    def __init__(self):
        self.session = session(1)

    @bentoml.api(route="/predict")
    def predict(self, file: Annotated[Image.Image, ContentType("image/jpeg")]) -> dict[str, float]:
        return {"probability": float(run(self.session, pixels(file)[None])[0])}


@bentoml.service(workers=1, threads=1, traffic={"timeout": 60})
class Model:
    def __init__(self):
        self.session = session(2)

    @bentoml.api(batchable=True, max_batch_size=max(2, BATCH), max_latency_ms=1000)
    def judge(self, batch: list[np.ndarray]) -> list[float]:
        return [float(p) for p in run(self.session, np.stack(batch))]


@bentoml.service(workers=1, traffic={"timeout": 60})
class Batching:
    model = bentoml.depends(Model)

    @bentoml.api(route="/predict")
    async def predict(self, file: Annotated[Image.Image, ContentType("image/jpeg")]) -> dict[str, float]:
        (found,) = await self.model.to_async.judge([pixels(file)])
        return {"probability": found}
