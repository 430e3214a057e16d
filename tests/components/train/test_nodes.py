"""Where a machine of a custom job stands among the others, by what Vertex AI tells it."""

import json

import pytest
import torch

from components.train.config import Launch, Node
from components.train.distributed import joined
from serving.platform.errors import StageError
from tests.components.train.test_cluster import cluster_spec


def test_a_machine_learns_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = json.loads(cluster_spec("workerpool1", 1))
    spec["cluster"] = {"workerpool0": ["lead-0:2222"], "workerpool1": ["w-0:2222", "w-1:2222"], "workerpool3": ["e:1"]}
    monkeypatch.setenv("CLUSTER_SPEC", json.dumps(spec))
    node = Node.from_environment()
    assert (node.rank, node.nodes, node.host, node.port) == (2, 3, "lead-0", 2222)
    monkeypatch.setenv("CLUSTER_SPEC", cluster_spec("workerpool0", 0))
    assert Node.from_environment() == Node(0, 2, "127.0.0.1", 2222)


@pytest.mark.parametrize(
    "spec",
    ["", "{}", "[]", "null", '{"cluster": {}}', '{"cluster": [], "task": {}}', '{"cluster": {"workerpool0": ["h"]}}',
     cluster_spec("workerpool2", 0), cluster_spec("workerpool1", 7),
     '{"cluster": {"workerpool0": [1]}, "task": {"type": "workerpool0", "index": 0}}'],
)  # fmt: skip
def test_a_place_that_is_none_is_said_in_one_line(spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLUSTER_SPEC", spec)
    with pytest.raises(StageError, match=r"^CLUSTER_SPEC ") as error:
        Node.from_environment()
    assert "\n" not in str(error.value)


def test_a_gpu_that_torch_cannot_use_is_said_with_the_driver_that_it_wants(monkeypatch: pytest.MonkeyPatch) -> None:
    def too_old() -> None:
        raise RuntimeError("The NVIDIA driver on your system is too old (found version 12040).")

    for built, wanted in (("13.0", "driver 580 or newer"), ("12.6", "driver 525 or newer"), (None, "built for CPUs")):
        monkeypatch.setattr(torch.version, "cuda", built)
        monkeypatch.setattr(torch.cuda, "init", too_old)
        with (
            pytest.raises(StageError, match=f"{wanted}.*TORCH_CUDA_INDEX") as error,
            joined(Launch(), "cuda"),
        ):
            pass
        assert "\n" not in str(error.value)
        assert ("found version 12040" in str(error.value)) == (built is not None)
