"""A catalogue of 2,000 photos in which everything bad was planted that a catalogue may hold."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.components.catalogue.jobs import command, rows_of
from tests.components.catalogue.test_kills import HOOK
from tests.serving.fetch.shop import HOSTILE, shop
from tests.untraced import untraced

PHOTOS, DAMAGED, POISON = 2_000, 20, 1_234


def plant(feed: Path, good: list[bytes]) -> dict[str, str | None]:
    """Write the photos beside the feed, one in a hundred cut short and one that kills; id -> reason, in order."""
    expected: dict[str, str | None] = {}
    for number in range(PHOTOS):
        clean = good[number % len(good)]
        damaged = number % (PHOTOS // DAMAGED) == 7
        data = clean[: len(clean) // 2] if damaged else clean
        if number == POISON:
            data = clean[:2] + b"\xff\xfe\x00\x08POISON" + clean[2:]
        (feed.parent / f"{number}.jpg").write_bytes(data)
        expected[f"p{number}"] = "worker_died" if number == POISON else "corrupt" if damaged else None
    return expected


@pytest.mark.system
def test_two_thousand_photos_get_the_rows_that_were_planted(photos: Path, toy_bundle: Path, tmp_path: Path) -> None:
    feed, hook = tmp_path / "feed/feed.csv", tmp_path / "hook"
    feed.parent.mkdir()
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(HOOK)
    good = [path.read_bytes() for path in sorted(photos.glob("[abc]/[0-9][0-9].jpg"))]
    expected = plant(feed, good)
    lines = [f"{name},{name[1:]}.jpg" for name in expected]
    with shop({path: answer for path, (answer, _) in HOSTILE.items()}) as host:
        for number, (path, (_, reason)) in enumerate(HOSTILE.items()):
            # among the photos, so that each shard has its share
            lines.insert(number * 70, f"u{number},{host.url(path)}")
            expected[f"u{number}"] = reason
        feed.write_text("id,image_link\n" + "\n".join(lines) + "\n")
        knobs = {"shard_photos": 100, "trusted_hosts": '["127.0.0.1"]', "fetch_attempts": 1, "fetch_deadline_s": 3}
        sets = [word for key, value in knobs.items() for word in ("--set", f"catalogue.{key}={value}")]
        done = subprocess.run(
            command(feed, tmp_path / "out", toy_bundle, *sets, "--json"),
            env=untraced() | {"PYTHONPATH": str(hook)},
            capture_output=True, text=True, timeout=600, check=False,
        )  # fmt: skip
    # a photo that ended its worker is told by the exit status; all others were scored
    assert done.returncode == 1, done.stderr[-3000:]
    rows = rows_of(tmp_path / "out")
    assert [row["id"] for row in rows] == [line.partition(",")[0] for line in lines]
    assert {row["id"]: row["refused_reason"] for row in rows} == expected
    assert all((row["decision"] is None) == (row["refused_reason"] is not None) for row in rows)
    summary = json.loads(done.stdout)
    assert (summary["photos"], summary["worker_died"]) == (len(expected), 1)
    assert summary["refused"] == sum(reason is not None for reason in expected.values())
    assert sum(summary["decisions"].values()) == PHOTOS - DAMAGED - 1
