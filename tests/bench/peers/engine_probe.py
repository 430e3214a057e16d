"""One engine on one thread: `engine_probe.py ENGINE GRAPH PIXELS.npy ANSWERS.npy`.

ENGINE is `onnxruntime`, `openvino-f32` or `openvino-bf16`. The pixels are uint8 (n, px, px, 3), scored one image a
call. Each line of input names a slice, `START STOP`, and is answered with the processor milliseconds an image; at the
end of input the answers are written, and one JSON line tells the resident MiB beside what Python and the pixels take.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np


def scorer(engine, graph, shape):
    if engine == "onnxruntime":
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        return lambda image: session.run(["logit"], {"image": image})[0]
    import openvino as ov

    core, precision = ov.Core(), engine.partition("-")[2]
    settings = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": precision}
    model = core.read_model(graph)
    # a batch of any size would cost it some of its speed
    model.reshape({"image": list(shape)})
    request = core.compile_model(model, "CPU", settings).create_infer_request()
    return lambda image: request.infer({"image": image})["logit"]


def resident_mib():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20


def main(engine, graph, pixels, answers):
    images = np.load(pixels)
    before = resident_mib()
    score = scorer(engine, graph, (1, *images.shape[1:]))
    for image in images[:10]:
        score(image[None])
    logits = np.zeros(len(images))
    for line in sys.stdin:
        start, stop = map(int, line.split())
        began = time.process_time()
        for at in range(start, stop):
            logits[at] = np.asarray(score(images[at : at + 1])).reshape(-1)[0]
        print((time.process_time() - began) / (stop - start) * 1e3, flush=True)
    np.save(answers, logits)
    print(json.dumps({"mib": resident_mib() - before}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
