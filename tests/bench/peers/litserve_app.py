"""LitServe as its guide has it: decode, predict, encode; two workers of one thread, or one that batches with two.

BATCH is the most images in a batch (1: none), MODEL the graph, PORT where to listen.
"""

import io
import os

import litserve
import numpy as np
import onnxruntime as ort
from fastapi import UploadFile
from PIL import Image

PX = 224
BATCH = int(os.environ["BATCH"])


class Api(litserve.LitAPI):
    def setup(self, device):
        options = ort.SessionOptions()
        options.intra_op_num_threads = 2 if BATCH > 1 else 1
        # a thread that spins between its shares takes the time of those that decode
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.session = ort.InferenceSession(os.environ["MODEL"], options)

    def decode_request(self, request: UploadFile):
        picture = Image.open(io.BytesIO(request.file.read())).convert("RGB").resize((PX, PX), Image.Resampling.BILINEAR)
        return np.asarray(picture)

    def predict(self, x):
        batch = np.stack(x) if BATCH > 1 else x[None]
        logits = self.session.run(["logit"], {self.session.get_inputs()[0].name: batch})[0].reshape(-1)
        found = 1 / (1 + np.exp(-logits))
        return list(found) if BATCH > 1 else found[0]

    def encode_response(self, output):
        return {"probability": float(output)}


if __name__ == "__main__":
    api = Api(max_batch_size=BATCH, batch_timeout=0.005) if BATCH > 1 else Api()
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1 if BATCH > 1 else 2)
    server.run(
        host="127.0.0.1", port=int(os.environ["PORT"]), num_api_servers=1, generate_client_file=False,
        log_level="warning",
    )  # fmt: skip
