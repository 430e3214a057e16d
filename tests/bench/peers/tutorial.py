"""FastAPI and ONNX Runtime as the tutorials have them: `uvicorn`, PIL, one session made at import.

The environment says which of two: THREADED=no is the tutorials' `async def` around a session with its own choice of
threads; THREADED=yes is what a careful reader makes of it: `def`, so that FastAPI's threads do the work, and one thread
for each session's run. MODEL is the graph, PORT where to listen.
"""

import io
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import anyio.to_thread
import numpy as np
import onnxruntime as ort
import uvicorn
from fastapi import FastAPI, File, UploadFile
from PIL import Image

PX = 224
THREADED = os.environ["THREADED"] == "yes"
options = ort.SessionOptions()
if THREADED:
    options.intra_op_num_threads = 1
session = ort.InferenceSession(os.environ["MODEL"], options)
threads = ThreadPoolExecutor(2)


@asynccontextmanager
async def lifespan(app):
    # as many at once as there are cores: forty, FastAPI's own figure, would fight for them
    anyio.to_thread.current_default_thread_limiter().total_tokens = 2
    yield


app = FastAPI(lifespan=lifespan)


def judge(data: bytes) -> dict[str, float]:
    picture = Image.open(io.BytesIO(data)).convert("RGB").resize((PX, PX), Image.Resampling.BILINEAR)
    logits = session.run(["logit"], {session.get_inputs()[0].name: np.asarray(picture)[None]})[0]
    return {"probability": float(1 / (1 + np.exp(-logits.reshape(-1)[0])))}


if THREADED:

    @app.post("/predict")
    def predict(file: UploadFile = File()):  # noqa: B008 - FastAPI's way
        return judge(file.file.read())

else:

    @app.post("/predict")
    async def predict(file: UploadFile = File()):  # noqa: B008 - FastAPI's way
        return judge(await file.read())


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ["PORT"]), log_level="warning")
