"""Locust: shoppers' traffic on the detector.

    locust -f tests/load/locustfile.py --host http://127.0.0.1:8080 --headless -u 8 -r 8 -t 60s

API_KEY is sent where it is set. A 429 is obeyed and is no failure: the user waits as `Retry-After` says. The run
exits 1 when more than MAX_FAIL_RATIO of the other answers failed, or the p95 of /predict passes MAX_P95_MS.
"""

import os

import gevent
from locust import FastHttpUser, between, events, task
from locust.env import Environment

from tests.bundles import jpeg
from tests.load.pictures import SIZES

API_KEY = os.environ.get("API_KEY", "")
MAX_FAIL_RATIO = float(os.environ.get("MAX_FAIL_RATIO", "0"))
MAX_P95_MS = float(os.environ.get("MAX_P95_MS", "1000"))

SMALL, LARGE = (jpeg(160, size) for size in SIZES.values())


class Shopper(FastHttpUser):
    """Mostly single pictures, now and then a batch or an explanation."""

    wait_time = between(0.01, 0.1)

    def on_start(self) -> None:
        """Show the key with every request."""
        self.key = {"X-API-Key": API_KEY} if API_KEY else {}

    @task(8)
    def predict(self) -> None:
        """One picture."""
        self._send("/predict", [("file", ("x.jpg", SMALL, "image/jpeg"))])

    @task(2)
    def predict_large(self) -> None:
        """One picture of a phone."""
        self._send("/predict", [("file", ("x.jpg", LARGE, "image/jpeg"))])

    @task(1)
    def batch(self) -> None:
        """Four pictures."""
        self._send("/predict/batch", [("files", ("x.jpg", SMALL, "image/jpeg"))] * 4)

    @task(1)
    def explain(self) -> None:
        """One picture and where its score came from."""
        self._send("/predict/explain", [("file", ("x.jpg", SMALL, "image/jpeg"))])

    @task(1)
    def health(self) -> None:
        """What a balancer asks."""
        self.client.get("/health")

    def _send(self, path: str, files: list[tuple[str, tuple[str, bytes, str]]]) -> None:
        body, content_type = encode(files)
        headers = {**self.key, "Content-Type": content_type}
        with self.client.post(path, data=body, headers=headers, catch_response=True) as answer:
            if answer.status_code != 429:
                return
            answer.request_meta["name"] = f"{path} (limited)"
            answer.success()
            pause = float(answer.headers.get("Retry-After", "0"))
        if not pause:
            raise RuntimeError("a 429 without Retry-After")
        gevent.sleep(pause)


def encode(files: list[tuple[str, tuple[str, bytes, str]]]) -> tuple[bytes, str]:
    """Files as a multipart body, and its content type."""
    parts = [
        f'--load\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n'
        f"Content-Type: {kind}\r\n\r\n".encode()
        + data
        + b"\r\n"
        for field, (name, data, kind) in files
    ]
    return b"".join(parts) + b"--load--\r\n", "multipart/form-data; boundary=load"


@events.quitting.add_listener
def judge(environment: Environment, **_: object) -> None:
    """Turn the thresholds into the exit code."""
    total = environment.stats.total
    predict = environment.stats.get("/predict", "POST")
    p95 = predict.get_response_time_percentile(0.95) or 0
    failed = predict.num_requests == 0 or total.fail_ratio > MAX_FAIL_RATIO or p95 > MAX_P95_MS
    environment.process_exit_code = 1 if failed else 0
