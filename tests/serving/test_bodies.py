"""How bodies are received: a share for each client, a least pace, no deadline; and an end for what is stuck."""

import socket
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from serving.http.uploads import BodyBudget
from serving.platform.errors import AidetectError
from tests.bundles import jpeg
from tests.hostile import bodies
from tests.serving.processes import Server, serve

MIB = 2**20
HEAD = b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
END = b"\r\n--b--\r\n"


def begin(server: Server, length: int, source: str = "127.0.0.2") -> socket.socket:
    opened = socket.create_connection(("127.0.0.1", server.port), timeout=60, source_address=(source, 0))
    lines = ("POST /predict HTTP/1.1", "Host: x", f"Content-Length: {length}")
    opened.sendall("\r\n".join((*lines, "Content-Type: multipart/form-data; boundary=b", "", "")).encode())
    return opened


def test_a_client_may_hold_no_more_than_is_left_free() -> None:
    budget = BodyBudget(120)
    with ExitStack() as held:
        greedy = [held.enter_context(budget.account("greedy")) for _ in range(2)]
        greedy[0].take(50)
        greedy[1].take(10)
        with pytest.raises(AidetectError):
            greedy[1].take(1)
        modest = held.enter_context(budget.account("modest"))
        modest.take(30)
        with pytest.raises(AidetectError):
            modest.take(1)
        third = held.enter_context(budget.account("third"))
        third.take(15)
    with budget.account("greedy") as after:
        after.take(60)


def test_slow_bodies_of_one_client_shut_nobody_out(toy_bundle: Path, tmp_path: Path) -> None:
    env = {"MAX_BATCH_BYTES": str(10 * MIB), "MAX_BUFFERED_BYTES": str(32 * MIB), "BODY_TIMEOUT_S": "30"}
    with serve(toy_bundle, tmp_path / "log", SLOTS="1", **env) as server, ExitStack() as held:
        for _ in range(10):
            slow = held.enter_context(begin(server, 9 * MIB))
            slow.sendall(HEAD)
            try:
                slow.sendall(bytes(5 * MIB))
            except OSError:
                # refused while it was sending: it has its share
                continue
        for _ in range(4):
            answer = httpx.post(f"{server.url}/predict", files={"file": jpeg(200) + bytes(3 * MIB)}, timeout=60)
            assert answer.status_code == 200, answer.text


def test_a_steady_slow_upload_lives_and_one_that_stalls_does_not(toy_bundle: Path, tmp_path: Path) -> None:
    """In time steps a sixtieth of the real ones: a second for a minute."""
    env = {"BODY_TIMEOUT_S": "1.0", "BODY_MIN_RATE": "20000"}
    data = HEAD + jpeg(200) + bytes(400_000) + END
    with serve(toy_bundle, tmp_path / "log", SLOTS="1", **env) as server:
        with begin(server, len(data)) as steady:
            started = time.monotonic()
            for at in range(0, len(data), 20_000):
                steady.sendall(data[at : at + 20_000])
                time.sleep(0.15)
            assert steady.recv(65536).startswith(b"HTTP/1.1 200 ")
            assert time.monotonic() - started > 3 * 1.0, "several times the time that a stalled one has"
        with begin(server, len(data)) as stalls:
            stalls.sendall(data[:100_000])
            assert stalls.recv(65536).startswith(b"HTTP/1.1 408 ")
        with begin(server, len(data)) as drips:
            answer = []
            reader = threading.Thread(target=lambda: answer.append(drips.recv(65536)))
            reader.start()
            for at in range(200):
                try:
                    drips.sendall(data[at : at + 1])
                except OSError:
                    break
                if answer:
                    break
                time.sleep(0.05)
            reader.join(60)
            assert answer[0].startswith(b"HTTP/1.1 408 ")


def test_a_decode_over_its_time_is_refused_and_its_slot_is_free(toy_bundle: Path, tmp_path: Path) -> None:
    long = bodies.flat_png()
    with serve(toy_bundle, tmp_path / "log", SLOTS="1", DECODE_TIMEOUT_S="0.02") as server:
        answers = [httpx.post(f"{server.url}/predict", files={"file": long}, timeout=60).json() for _ in range(2)]
        assert {answer["reason"] for answer in answers} == {"decode_timeout"}
        assert answers[0]["status"] == 422
        batch = httpx.post(
            f"{server.url}/predict/batch",
            files=[("files", ("a", jpeg(200))), ("files", ("b", long))],
            timeout=60,
        ).json()
        assert [item["error"] and item["error"]["reason"] for item in batch["results"]] == [None, "decode_timeout"]
        assert httpx.post(f"{server.url}/predict", files={"file": jpeg(200)}, timeout=60).status_code == 200
        assert server.terminate() == 0


def test_ten_of_the_largest_pictures_cost_what_one_does(toy_bundle: Path, tmp_path: Path) -> None:
    """One slot: of each picture only the model's input is kept while the others are decoded."""
    with serve(toy_bundle, tmp_path / "log", SLOTS="1", REQUEST_TIMEOUT_S="120") as server:
        # as many pixels in a line: what looks for borders must not take the whole of it for a small picture
        largest = [bodies.flat_png(), bodies.flat_png(54_000, 540)]
        before = server.peak_mib()
        answer = httpx.post(
            f"{server.url}/predict/batch", files=[("files", (f"{n}", largest[n % 2])) for n in range(10)], timeout=150
        )
        assert answer.json()["successful"] == 10
        assert server.peak_mib() - before < 200
