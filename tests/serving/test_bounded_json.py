"""JSON of the Vertex and V2 dialects: what any body costs is bounded before anything is built of it."""

import base64
import json
import struct
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st

from serving.http.bounded_json import LONG, MAX_REST_BYTES, read
from serving.http.codecs import ImageBounds, decode_v2, decode_vertex
from serving.http.problems import ProblemError
from tests.bundles import jpeg
from tests.serving.processes import Server, serve

NAME = "ai-product-photo-detector"
BOUNDS = ImageBounds(most=10, max_bytes=10 * 2**20)
IMAGE = jpeg(205, (90, 70))
B64 = base64.b64encode(IMAGE).decode()


def vertex(instances: bytes) -> bytes:
    return b'{"instances":' + instances + b"}"


def v2(member: bytes) -> bytes:
    return b'{"inputs":[{"name":"image","datatype":"BYTES","shape":[1],' + member + b"}]}"


MIB = 2**20
BOMBS: dict[str, Callable[[], bytes]] = {
    "ones": lambda: vertex(b"[" + b"1," * (16 * MIB) + b"1]"),
    "empty objects": lambda: vertex(b"[" + b"{}," * (8 * MIB) + b"{}]"),
    "empty texts": lambda: vertex(b"[" + b'"",' * (8 * MIB) + b'""]'),
    "a deep list": lambda: b"[" * (16 * MIB),
    "a deep object": lambda: b'{"a":' * (4 * MIB),
    "a long number": lambda: vertex(b"[" + b"1" * (32 * MIB) + b"]"),
    "members": lambda: b"{" + b",".join(b'"%d":1' % i for i in range(MIB)) + b"}",
    "a text that never ends": lambda: vertex(b'["' + b"a" * (32 * MIB)),
    "backslashes": lambda: vertex(b'["' + b"\\" * (32 * MIB) + b'"]'),
    "escaped quotes": lambda: vertex(b'["' + b'\\"' * (16 * MIB) + b'"]'),
    "an emoji among base64": lambda: vertex(b'[{"b64":"' + b"A" * (32 * MIB) + "\U0001f600".encode() + b'"}]'),
    "an escaped emoji": lambda: vertex(b'[{"b64":"' + b"A" * (32 * MIB) + b'\\ud83d\\ude00"}]'),
    "a text of escapes": lambda: vertex(b'[{"b64":"' + b"\\u0041" * (5 * MIB) + b'"}]'),
    "spaces": lambda: b" " * (32 * MIB),
    "names": lambda: b'{"instances":[{"' + b"n" * (32 * MIB) + b'":1}]}',
    "many images": lambda: vertex(b"[" + b'{"b64":"QUJD"},' * 1000 + b'{"b64":"QUJD"}]'),
    "v2: ones": lambda: v2(b'"data":[' + b"1," * (16 * MIB) + b"1]"),
    "v2: many texts": lambda: v2(b'"data":[' + b'"QUJD",' * 5000 + b'"QUJD"]'),
    "v2: a long shape": lambda: v2(b'"data":["QUJD"],"shape":[' + b"1," * 20_000 + b"1]"),
    "v2: many inputs": lambda: b'{"inputs":[' + b"{}," * 20_000 + b"{}]}",
    "v2: outputs": lambda: b'{"inputs":[],"outputs":[' + b'{"name":"x"},' * 4000 + b'{"name":"x"}]}',
    "v2: a long id": lambda: b'{"id":"' + b"i" * (8 * MIB) + b'","inputs":[]}',
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_for_less_than_it_weighs(name: str) -> None:
    body = bytearray(BOMBS[name]())
    decode = decode_v2 if name.startswith("v2") else decode_vertex
    tracemalloc.start()
    before = time.thread_time()
    with pytest.raises(ProblemError) as refused:
        decode(body, BOUNDS)
    seconds = time.thread_time() - before
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert refused.value.reason in ("invalid_request", "too_many_files", "file_too_large")
    assert len(refused.value.detail) < 600
    assert peak < max(len(body), 16 * MIB), "memory"
    assert seconds < 1.5, "tracing included"


def binary(raw: bytes) -> tuple[bytearray, str]:
    head = v2(b'"parameters":{"binary_data_size":%d}' % len(raw))
    return bytearray(head + raw), str(len(head))


def test_binary_elements_are_counted_before_they_are_made() -> None:
    body, length = binary(bytes(4 * 4_000_000))
    before = time.thread_time()
    with pytest.raises(ProblemError) as refused:
        decode_v2(body, BOUNDS, length)
    assert refused.value.reason == "too_many_files"
    assert time.thread_time() - before < 0.5
    body, length = binary(struct.pack("<I", 11 * MIB) + bytes(11 * MIB))
    with pytest.raises(ProblemError) as refused:
        decode_v2(body, BOUNDS, length)
    assert refused.value.reason == "file_too_large"


@pytest.mark.parametrize("length", ["9" * 5000, "-1", "+1", "٣", "1e3", "0x10", "", " ", "9" * 12, "x" * 20_000])
def test_a_header_length_that_is_none_is_told_shortly(length: str) -> None:
    with pytest.raises(ProblemError) as refused:
        decode_v2(bytearray(v2(b'"data":[]')), BOUNDS, length)
    assert refused.value.reason == "invalid_request"
    assert len(refused.value.detail) < 400


@pytest.mark.parametrize("escape", [("/", "\\/"), ("+", "\\u002B"), ("=", "\\u003d"), ("/", "\\u002F")])
def test_base64_is_understood_as_json_writers_escape_it(escape: tuple[str, str]) -> None:
    for data in (IMAGE, IMAGE[:80], bytes(range(256)) * 40, b"\xfb\xff" * 900):
        text = base64.b64encode(data).decode().replace(*escape)
        assert decode_vertex(bytearray(f'{{"instances":[{{"b64":"{text}"}}]}}'.encode()), BOUNDS) == [data]


def test_a_file_of_the_largest_size_passes_and_a_byte_more_does_not() -> None:
    for size, passes in ((BOUNDS.max_bytes, True), (BOUNDS.max_bytes + 1, False)):
        body = bytearray(vertex(b'[{"b64":"' + base64.b64encode(bytes(size)) + b'"}]'))
        if passes:
            assert len(decode_vertex(body, BOUNDS)[0]) == size
        else:
            with pytest.raises(ProblemError) as refused:
                decode_vertex(body, BOUNDS)
            assert refused.value.reason == "file_too_large"


TEXTS = st.text(alphabet=st.sampled_from('ab"\\/ ü😀\n,[]{}:'), max_size=30).flatmap(
    lambda some: st.sampled_from([some, some * 40, "A" * (LONG + 3), "\\" * 100])
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=8,
)


@given(JSON, st.booleans())
def test_every_document_is_read_as_any_parser_reads_it(document: Any, ascii_only: bool) -> None:
    body = json.dumps(document, ensure_ascii=ascii_only).encode()

    def resolved(value: Any) -> Any:
        if isinstance(value, str):
            return orjson.loads(b'"' + bytes(found.text(value)) + b'"') if value.startswith("\0") else value
        if isinstance(value, list):
            return [resolved(item) for item in value]
        if isinstance(value, dict):
            return {resolved(name): resolved(item) for name, item in value.items()}
        return value

    found = read(body)
    assert resolved(found.content) == document


@given(st.binary(max_size=2000) | st.text(alphabet='"\\[]{}:,0aA', max_size=2000).map(str.encode))
def test_anything_is_a_document_or_refused(body: bytes) -> None:
    for decode in (lambda b: decode_vertex(b, BOUNDS), lambda b: decode_v2(b, BOUNDS)):
        try:
            decode(bytearray(body))
        except ProblemError as error:
            assert error.reason == "invalid_request"


@pytest.fixture(scope="module")
def server(toy_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serve(toy_bundle, tmp_path_factory.mktemp("json") / "log", SLOTS="1") as running:
        yield running


def test_the_largest_bodies_cost_the_server_little_and_the_loop_nothing(server: Server) -> None:
    assert httpx.post(f"{server.url}/vertex/predict", json={"instances": [{"b64": B64}]}).status_code == 200
    before = server.peak_mib()
    bombs: list[bytes] = [
        vertex(b"[" + b"1," * (20 * MIB) + b"1]"),
        b"[" * (40 * MIB),
        vertex(b"[" + b"{}," * (13 * MIB) + b"{}]"),
    ]
    for bomb in bombs:
        answer = httpx.post(f"{server.url}/vertex/predict", content=bomb, timeout=60)
        assert (answer.status_code, answer.json()["reason"]) == (422, "invalid_request")
        assert len(answer.content) < 1500
    body, length = binary(bytes(48 * MIB))
    path = f"{server.url}/v2/models/{NAME}/infer"
    answer = httpx.post(path, content=bytes(body), headers={"Inference-Header-Content-Length": length}, timeout=60)
    assert (answer.status_code, answer.json()["reason"]) == (422, "too_many_files")
    assert server.peak_mib() - before < 200
    # what stands behind the bodies themselves
    assert MAX_REST_BYTES < MIB


def test_unknown_outputs_are_not_echoed_by_the_megabyte(client: TestClient) -> None:
    tensor = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [B64]}
    outputs = [{"name": "x" * 255}] * 16
    answer = client.post(f"/v2/models/{NAME}/infer", json={"inputs": [tensor], "outputs": outputs})
    assert answer.status_code == 422
    assert len(answer.content) < 1500
    header = client.post(
        f"/v2/models/{NAME}/infer", json={"inputs": [tensor]}, headers={"Inference-Header-Content-Length": "1" * 5000}
    )
    assert (header.status_code, header.json()["reason"]) == (422, "invalid_request")
    assert len(header.content) < 1500
