"""`aidetect score --on ray://...` on a real cluster of two nodes of this machine's loopback."""

import json
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.catalogue.cluster import on_ray
from components.catalogue.config import CatalogueConfig
from components.catalogue.stage import score_catalogue
from serving.platform.errors import CatalogueError
from tests.components.catalogue.jobs import command, here, rows_of, score
from tests.components.catalogue.ray_cluster import PATIENCE_S, Cluster, cluster, until
from tests.components.catalogue.test_kills import HOOK

SLOW = """
import time
quick = hashlib.sha256
def sha256(data=b"", **named):
    if bytes(data[:2]) in (b"\\xff\\xd8", b"\\x89P"):
        time.sleep(0.2)
    return quick(data, **named)
hashlib.sha256 = sha256
"""
"""A photo takes so long that a job can be met half-way."""


@pytest.fixture(scope="module")
def nodes() -> Iterator[Cluster]:
    with cluster(HOOK + SLOW) as found:
        yield found


@pytest.fixture(scope="module")
def shop(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shop's photos, of which one kills its worker."""
    folder = tmp_path_factory.mktemp("ray") / "in"
    shutil.copytree(photos, folder, symlinks=True, ignore=shutil.ignore_patterns("loop", "pipe.jpg"))
    clean = (folder / "c/05.jpg").read_bytes()
    (folder / "c/05.jpg").write_bytes(clean[:2] + b"\xff\xfe\x00\x08POISON" + clean[2:])
    return folder


def begin(nodes: Cluster, source: Path, output: Path, bundle: Path) -> subprocess.Popen[str]:
    """A job that has committed some of its parts, and not all."""
    job = subprocess.Popen(
        command(source, output, bundle, "--workers", "0", "--on", nodes.address, "--json"),
        env=nodes.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    until(lambda: len(parts(output)) >= 3 or job.poll() is not None, "no part was committed")
    assert job.poll() is None, job.communicate()
    return job


def parts(output: Path) -> dict[str, int]:
    return {part.name: part.stat().st_mtime_ns for part in (output / "parts").glob("part-*")}


@pytest.mark.system
@pytest.mark.nightly
def test_a_cluster_that_loses_a_node_scores_as_one_machine_does_and_a_photo_that_kills_costs_its_own_row(
    photos: Path, shop: Path, toy_bundle: Path, tmp_path: Path, nodes: Cluster
) -> None:
    second = nodes.second()
    job = begin(nodes, shop, tmp_path / "out", toy_bundle)
    before = parts(tmp_path / "out")
    nodes.kill(second)
    told, said = job.communicate(timeout=2 * PATIENCE_S)
    # the photo that kills is told by the exit status; all others were scored
    assert job.returncode == 1, said
    assert json.loads(told)["photos"] == 45
    rows = rows_of(tmp_path / "out")
    assert {row["id"] for row in rows if row["refused_reason"] == "worker_died"} == {"c/05.jpg"}
    after = parts(tmp_path / "out")
    assert {name: after[name] for name in before} == before
    score(photos, tmp_path / "here", toy_bundle, max_file_bytes=CatalogueConfig().max_file_bytes)
    expected = {row["id"]: row for row in rows_of(tmp_path / "here")}
    assert [row["id"] for row in rows] == list(expected)
    other = {"seconds": 0, "uri": "", "model_version": ""}
    for row in rows:
        if row["id"] != "c/05.jpg":
            wanted = expected[row["id"]]
            assert row.pop("probability") == pytest.approx(wanted.pop("probability"), abs=1e-6)
            assert {**row, **other} == {**wanted, **other}


@pytest.mark.system
@pytest.mark.nightly
def test_a_job_on_a_cluster_that_is_killed_goes_on_without_losing_or_doubling_a_row(
    photos: Path, toy_bundle: Path, tmp_path: Path, nodes: Cluster
) -> None:
    job = begin(nodes, photos, tmp_path / "out", toy_bundle)
    job.kill()
    job.communicate()
    before = parts(tmp_path / "out")
    done = subprocess.run(
        command(photos, tmp_path / "out", toy_bundle, "--workers", "0", "--on", nodes.address),
        env=nodes.environment, capture_output=True, text=True, timeout=2 * PATIENCE_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    after = parts(tmp_path / "out")
    assert {name: after[name] for name in before} == before
    rows = rows_of(tmp_path / "out")
    assert len(rows) == len({row["id"] for row in rows}) == 45


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("ray://127.0.0.1:{port}", "no Ray cluster answers at ray://127.0.0.1:"),
        ("ray://127.0.0.1", "name it as ray://HOST:10001"),
        ("ray://:70000", "name it as ray://HOST:10001"),
    ],
)
def test_a_cluster_that_does_not_answer_is_one_line_and_leaves_the_job_to_go_on(
    photos: Path, toy_bundle: Path, tmp_path: Path, address: str, message: str
) -> None:
    with socket.socket() as silent:
        # bound, and listening to nobody
        silent.bind(("127.0.0.1", 0))
        named = address.format(port=silent.getsockname()[1])
        with pytest.raises(CatalogueError, match=message) as error:
            score_catalogue(
                str(photos / "a"), str(tmp_path), toy_bundle, "7", CatalogueConfig(), executor=on_ray(named)
            )
    assert "\n" not in str(error.value)
    done = score_catalogue(str(photos / "a"), str(tmp_path), toy_bundle, "7", CatalogueConfig(), executor=here)
    assert done.photos == len(rows_of(tmp_path)) > 0
