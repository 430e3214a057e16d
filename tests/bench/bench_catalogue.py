"""Scoring a catalogue against the engines' limit: CPU a photo, throughput, growth of memory.

`python -m tests.bench.bench_catalogue` makes JPEGs of mixed sizes, then runs paired rounds, each way once a round, in
turn and every other round backwards: as many plain processes as cores, each with one single-thread detector and its
share of the files (the limit); and `score_catalogue` on this machine. Printed are medians of the rounds' ratios. Peak
memory is that of the largest process, at 1x and at 10x the photos. Targets: CPU <= 1.10x, throughput >= 0.90x of the
limit, memory <= 1.25x at 10x.

With `--ray` also on a Ray cluster of two nodes of one CPU each, on loopback (needs the extra `ray`); target: throughput
>= 0.75x of the limit. The cluster's own processes are counted, its start is not.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing.forkserver import _forkserver
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image

from serving.platform.cores import usable_cores
from tests.bench.serving_inputs import efficientnet_bundle, photographs
from tests.components.catalogue.ray_cluster import Cluster, cluster

Way = Callable[[Path, Path, Path], None]


def make_photos(folder: Path, count: int, original: Path) -> Path:
    """`count` JPEGs of 400 to 1,000 px: crops of one photograph, no two alike."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    with Image.open(original) as opened:
        picture = opened.convert("RGB")
    for number in range(count):
        width, height = (int(side) for side in rng.integers(400, 1000, 2))
        x, y = int(rng.integers(0, picture.width - width)), int(rng.integers(0, picture.height - height))
        picture.crop((x, y, x + width, y + height)).save(folder / f"{number:06d}.jpg", quality=88)
    return folder


def judge_share(bundle: Path, photos: Path, share: int, of: int) -> None:
    """The limit's worker: read, judge, forget."""
    from serving.detector.detector import Detector

    detector = Detector.load(bundle, threads=1)
    for path in sorted(photos.iterdir())[share::of]:
        detector.judge(path.read_bytes())


def limit(bundle: Path, photos: Path, _: Path) -> None:
    """Plain processes, one for each core."""
    cores = usable_cores()
    command = [sys.executable, "-m", __spec__.name, "--share", str(bundle), str(photos)]
    workers = [subprocess.Popen([*command, str(share), str(cores)]) for share in range(cores)]
    codes = [worker.wait() for worker in workers]
    if any(codes):
        raise RuntimeError("a worker of the limit failed")


def scored(bundle: Path, photos: Path, output: Path) -> None:
    """The product on this machine."""
    from components.catalogue.config import CatalogueConfig
    from components.catalogue.stage import score_catalogue

    score_catalogue(str(photos), str(output), bundle, "bench", CatalogueConfig(shard_photos=50))


def scored_on_ray(bundle: Path, photos: Path, output: Path) -> None:
    """The product on the cluster that `RAY_ADDRESS` names."""
    from components.catalogue.cluster import on_ray
    from components.catalogue.config import CatalogueConfig
    from components.catalogue.stage import score_catalogue

    executor = on_ray(os.environ["RAY_ADDRESS"])
    score_catalogue(str(photos), str(output), bundle, "bench", CatalogueConfig(shard_photos=50), executor=executor)


WAYS: dict[str, Way] = {"limit": limit, "score": scored, "ray": scored_on_ray}


def measure(way: str, bundle: Path, photos: Path, environment: Mapping[str, str] | None = None) -> dict[str, float]:
    """One way in a process of its own: seconds, CPU seconds of all its processes, MB of the largest."""
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-m", __spec__.name, "--way", way, str(bundle), str(photos), f"{scratch}/out"]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True, env=environment)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure_on(nodes: Cluster, bundle: Path, photos: Path) -> dict[str, float]:
    """The same on a cluster; its processes' time is added."""
    with _sampled_cpu(nodes) as seconds:
        found = measure("ray", bundle, photos, {**nodes.environment, "RAY_ADDRESS": nodes.address})
    return {**found, "cpu": found["cpu"] + seconds[0]}


@contextmanager
def _sampled_cpu(nodes: Cluster) -> Iterator[list[float]]:
    """CPU seconds of a cluster while the block runs, the only item, once it has ended; workers come and go."""

    def now() -> dict[int, float]:
        found = {}
        for process in nodes.processes():
            with suppress(psutil.Error):
                spent = process.cpu_times()
                found[process.pid] = spent.user + spent.system
        return found

    before, last, total, done = now(), dict[int, float](), [0.0], threading.Event()

    def sample() -> None:
        while not done.wait(0.5):
            last.update(now())

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield total
    finally:
        done.set()
        thread.join()
        last.update(now())
        total[0] = sum(spent - before.get(pid, 0.0) for pid, spent in last.items())


def _run_way(name: str, bundle: Path, photos: Path, output: Path) -> dict[str, float]:
    started = time.monotonic()
    WAYS[name](bundle, photos, output)
    # the workers are the fork server's children: their time is told once it has ended and was waited for
    _forkserver._stop()  # type: ignore[attr-defined] # there is no public way
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return {
        "seconds": time.monotonic() - started,
        "cpu": sum(usage.ru_utime + usage.ru_stime for usage in usages),
        "mb": max(usage.ru_maxrss for usage in usages) / 1024,
    }


def main() -> int:
    """Print one line for each way, and one for memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ray", action="store_true", help="also on a Ray cluster of two nodes")
    parser.add_argument("--share", nargs=4, help=argparse.SUPPRESS)
    parser.add_argument("--way", nargs=4, help=argparse.SUPPRESS)
    parser.add_argument("--prepare", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.prepare:
        _prepare(options.prepare, options.photos)
        return 0
    if options.share:
        bundle, photos, share, of = options.share
        judge_share(Path(bundle), Path(photos), int(share), int(of))
        return 0
    if options.way:
        name, *places = options.way
        print(json.dumps(_run_way(name, *map(Path, places))))
        return 0
    with tempfile.TemporaryDirectory(prefix="aidetect-bench-") as scratch:
        _bench(Path(scratch), options)
    return 0


def _round(bundle: Path, photos: Path, nodes: Cluster | None, backwards: bool) -> dict[str, dict[str, float]]:
    found = {}
    # what runs later meets a warmer machine
    for way in reversed(WAYS) if backwards else WAYS:
        if way != "ray":
            found[way] = measure(way, bundle, photos)
        elif nodes is not None:
            found[way] = measure_on(nodes, bundle, photos)
    return found


def _prepare(scratch: Path, count: int) -> None:
    made = photographs(scratch)
    efficientnet_bundle(scratch / "bundle", made["1024"])
    make_photos(scratch / "tenth", max(50, count // 10), made["12MP"])
    make_photos(scratch / "photos", count, made["12MP"])


def tell(what: str, photos: int, rounds: list[dict[str, dict[str, float]]]) -> None:
    """A line for each way: medians over the rounds."""
    for way in (way for way in WAYS if way in rounds[0]):
        cpu = statistics.median(r[way]["cpu"] / r["limit"]["cpu"] for r in rounds)
        rate = statistics.median(r["limit"]["seconds"] / r[way]["seconds"] for r in rounds)
        ms = statistics.median(r[way]["cpu"] for r in rounds) / photos * 1e3
        print(f"{way:6} {ms:5.1f} ms CPU {what}: {cpu:.2f}x the limit's; throughput {rate:.2f}x", flush=True)


def _bench(scratch: Path, options: Any) -> None:
    # in a process of its own: a child begins with the highest memory of the process that started it
    prepare = [sys.executable, "-m", __spec__.name, "--prepare", str(scratch), "--photos", str(options.photos)]
    subprocess.run(prepare, check=True)
    bundle, tenth, photos = scratch / "bundle", scratch / "tenth", scratch / "photos"
    with ExitStack() as stack:
        nodes = stack.enter_context(cluster()) if options.ray else None
        if nodes is not None:
            nodes.second()
        few = _round(bundle, tenth, nodes, backwards=False)
        rounds = [_round(bundle, photos, nodes, number % 2 == 1) for number in range(options.rounds)]
    tell("a photo", options.photos, rounds)
    more = options.photos - max(50, options.photos // 10)
    without = [{way: {k: v - few[way][k] for k, v in found.items()} for way, found in r.items()} for r in rounds]
    tell("each further photo, without what starting costs", more, without)
    small, large = few["score"]["mb"], statistics.median(r["score"]["mb"] for r in rounds)
    print(f"memory of the largest process: {small:.0f} MB at a tenth, {large:.0f} MB: {large / small:.2f}x")


if __name__ == "__main__":
    sys.exit(main())
