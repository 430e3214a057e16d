"""One engine on one thread: `engine_probe.py ENGINE GRAPH PIXELS.npy ANSWERS.npy`; prints one JSON line.

ENGINE is `onnxruntime`, `openvino-f32` or `openvino-bf16`. The pixels are uint8 (n, px, px, 3), scored one image a
call. Printed: processor milliseconds an image (the median of rounds), resident MiB beside what Python and the pixels
take.
"""

import json
import statistics
import sys
import time
from pathlib import Path

import numpy as np

ROUND = 50


def scorer(engine, graph):
    if engine == "onnxruntime":
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        return lambda image: session.run(["logit"], {"image": image})[0]
    import openvino as ov

    precision = engine.partition("-")[2]
    settings = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": precision}
    request = ov.Core().compile_model(graph, "CPU", settings).create_infer_request()
    return lambda image: request.infer({"image": image})["logit"]


def resident_mib():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20


def main(engine, graph, pixels, answers):
    images = np.load(pixels)
    before = resident_mib()
    score = scorer(engine, graph)
    for image in images[:10]:
        score(image[None])
    logits, costs = [], []
    for start in range(0, len(images), ROUND):
        chunk = images[start : start + ROUND]
        began = time.process_time()
        logits += [float(np.asarray(score(image[None])).reshape(-1)[0]) for image in chunk]
        costs.append((time.process_time() - began) / len(chunk) * 1e3)
    np.save(answers, np.array(logits))
    print(json.dumps({"ms": statistics.median(costs), "least_ms": min(costs), "mib": resident_mib() - before}))


if __name__ == "__main__":
    main(*sys.argv[1:])
