"""The scripts that build the sample: what they read, what they keep apart, and that both classes meet one camera."""

import io
import struct
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageFilter

BUILD = Path(__file__).resolve().parents[2] / "data" / "sample" / "build"


@pytest.fixture(scope="module", autouse=True)
def scripts() -> Iterator[None]:
    """The scripts import each other by their bare names, as when one of them is run; undone afterwards."""
    before = set(sys.modules)
    sys.path.insert(0, str(BUILD))
    yield
    sys.path.remove(str(BUILD))
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(BUILD)):
            del sys.modules[name]


def archive(files: dict[str, bytes], packed: bool, version: int) -> bytes:
    """A Qt resource archive with one folder `shop` of files, written after the format's description."""
    names, content, offsets, spots = b"", b"", [], {}
    for name in ("shop", *files):
        spots[name] = len(names)
        names += struct.pack(">HI", len(name), 0) + name.encode("utf-16-be")
    for body in files.values():
        offsets.append(len(content))
        body = struct.pack(">I", len(body)) + zlib.compress(body) if packed else body
        content += struct.pack(">I", len(body)) + body
    stamp = b"" if version == 1 else bytes(8)
    tree = struct.pack(">IHII", 0, 2, 1, 1) + stamp
    tree += struct.pack(">IHII", spots["shop"], 2, len(files), 2) + stamp
    for name, offset in zip(files, offsets, strict=True):
        tree += struct.pack(">IHHHI", spots[name], int(packed), 0, 0, offset) + stamp
    start = 24
    head = b"qres" + struct.pack(">IIII", version, start, start + len(tree), start + len(tree) + len(content))
    return head + bytes(start - len(head)) + tree + content + names


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("packed", [False, True])
def test_the_files_of_a_qt_archive_are_read(tmp_path: Path, packed: bool, version: int) -> None:
    from rcc import entries

    files = {"cup.webp": b"a cup" * 50, "naïve lamp.webp": b"\x00\xff"}
    (tmp_path / "a.rcc").write_bytes(archive(files, packed, version))
    assert dict(entries(tmp_path / "a.rcc")) == {f"shop/{name}": body for name, body in files.items()}
    (tmp_path / "b.rcc").write_bytes(b"no archive at all")
    with pytest.raises(ValueError, match="no Qt resource archive"):
        list(entries(tmp_path / "b.rcc"))


def test_every_photograph_has_a_package_with_a_version_a_file_and_a_free_licence() -> None:
    from packages import PACKAGES, photographs

    chosen = photographs()
    assert len({one.source_id for one in chosen}) == len({(one.package, one.file) for one in chosen}) == len(chosen)
    assert {one.package for one in chosen} <= set(PACKAGES)
    assert {one.license for one in chosen} <= {
        "GPL-2", "GPL-2+", "GPL-3+", "CC-BY-4.0", "CC-BY-SA-4.0", "CC0-1.0",
    }  # fmt: skip
    assert {one.kind for one in chosen} == {"photo", "cutout"}
    assert sum(one.product for one in chosen) >= 90


def painted(seed: int) -> np.ndarray:
    """A soft picture of its own, 240 x 300 with an opaque middle."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (12, 15, 3), dtype=np.uint8)).resize(
        (300, 240), Image.Resampling.BICUBIC
    )
    alpha = np.zeros((240, 300, 1), np.uint8)
    alpha[9:-9, 9:-9] = 255
    return np.concatenate([np.asarray(small), alpha], axis=2)


def test_photographs_alike_or_mirrored_are_never_in_two_splits() -> None:
    from packages import Photograph
    from splits import SHARES, assign, groups

    shown = {f"p{k:02d}": painted(k) for k in range(40)}
    shown |= {f"m{k:02d}": np.ascontiguousarray(painted(k)[:, ::-1]) for k in range(10)}
    group = groups(shown)
    assert all(group[f"m{k:02d}"] == group[f"p{k:02d}"] for k in range(10))
    photos = [Photograph(name, "x", name, "GPL-2", "photo", k % 3 == 0) for k, name in enumerate(shown)]
    split = assign(photos, group, 5)
    assert set(split) == set(shown)
    assert set(split.values()) == set(SHARES)
    for number in set(group.values()):
        assert len({split[name] for name in shown if group[name] == number}) == 1
    assert split == assign(photos, group, 5)


@pytest.mark.parametrize("kind", ["photo", "cutout"])
def test_scenes_are_of_192_px_and_differ(kind: str) -> None:
    from packages import Photograph
    from scenes import SIDE, scene

    rng = np.random.default_rng(0)
    photo = Photograph("p", "x", "p", "GPL-2", kind, True)
    shown = [scene(photo, painted(1), rng) for _ in range(4)]
    assert {one.shape for one in shown} == {(SIDE, SIDE, 3)}
    assert len({one.tobytes() for one in shown}) == 4


def test_a_soft_picture_becomes_as_sharp_as_its_photograph_and_stays_the_same_scene() -> None:
    from camera import FEATURES, features
    from sharpness import equalised

    def detail(pixels: np.ndarray) -> float:
        body = io.BytesIO()
        Image.fromarray(pixels).save(body, "JPEG", quality=95)
        return float(features(body.getvalue())[FEATURES.index("Laplacian")])

    photograph = np.random.default_rng(4).integers(60, 196, (96, 96, 3), dtype=np.uint8)
    photograph = np.asarray(Image.fromarray(photograph).resize((192, 192), Image.Resampling.BICUBIC))
    soft = np.asarray(Image.fromarray(photograph).filter(ImageFilter.GaussianBlur(1.2)))
    brought = equalised(soft, photograph)
    assert abs(detail(brought) - detail(photograph)) < 0.5 * abs(detail(soft) - detail(photograph))
    assert np.abs(brought.mean((0, 1)) - soft.mean((0, 1))).max() < 2
    assert np.abs(equalised(photograph, photograph).astype(int) - photograph).max() <= 1


def test_the_plan_names_every_scene_once() -> None:
    from packages import Photograph
    from plan import PLAN, named

    photos = [Photograph(str(k), "x", "y", "GPL-2", "photo", False) for k in range(sum(count for *_, count in PLAN))]
    scenes = named(photos)
    assert [one.photo for one in scenes] == photos
    assert len({one.pair_id for one in scenes}) == len(scenes)


def test_the_shipped_files_keep_photographs_apart_and_name_their_rights(shipped_dir: Path) -> None:
    names = ("label", "generator", "source", "pair_id", "package", "file", "license")
    splits = {path.stem: pq.read_table(path, columns=list(names)).to_pylist() for path in shipped_dir.glob("*.parquet")}
    assert set(splits) == {"train", "val", "test", "unseen_generator"}
    assert len(splits["test"]) >= 1000
    sources = {name: {row["source"] for row in rows} for name, rows in splits.items()}
    for one, other in (("train", "val"), ("train", "test"), ("val", "test"), ("train", "unseen_generator")):
        assert sources[one].isdisjoint(sources[other]), (one, other)
    for name in ("train", "val", "test"):
        sides: dict[str, list[int]] = {}
        for row in splits[name]:
            sides.setdefault(row["pair_id"], []).append(row["label"])
        assert {tuple(sorted(labels)) for labels in sides.values()} == {(0, 1)}, "a pair is a photograph and its twin"
    unseen = {row["generator"] for row in splits["unseen_generator"]}
    assert unseen and unseen.isdisjoint(row["generator"] for row in splits["train"])
    every = [row for rows in splits.values() for row in rows]
    assert all(row[key] for row in every for key in ("source", "package", "file", "license"))
    assert sum(path.stat().st_size for path in shipped_dir.glob("*.parquet")) <= 20_000_000


def test_the_camera_knows_no_class_and_leaves_no_metadata() -> None:
    from camera import FEATURES, draw, features, shoot

    picture = painted(3)[:192, :192, :3]
    body = shoot(picture, draw(np.random.default_rng(2)))
    assert body == shoot(picture, draw(np.random.default_rng(2)))
    image = Image.open(io.BytesIO(body))
    assert (image.format, image.size, image.mode) == ("JPEG", (192, 192), "RGB")
    assert not image.getexif()
    found = features(body)
    assert found.shape == (len(FEATURES),)
    assert len(FEATURES) >= 15
    assert np.isfinite(found).all()


def test_matching_brings_two_classes_of_different_sharpness_together(monkeypatch: pytest.MonkeyPatch) -> None:
    import matching
    from camera import FEATURES
    from matching import Shots, match

    monkeypatch.setattr(matching, "ROUNDS", 0)
    monkeypatch.setattr(matching, "DRAWS", 3)
    sharp = np.stack([painted(k)[:192, :192, :3] for k in range(12)])
    rough = np.clip(sharp + np.random.default_rng(1).normal(0, 3, sharp.shape), 0, 255).astype(np.uint8)
    real, made = Shots(rough, 1), Shots(sharp, 2)
    of_real, of_made = match(real, made, 3)
    column, rows = FEATURES.index("Laplacian"), np.arange(12)

    def gap(first: np.ndarray, second: np.ndarray) -> float:
        return abs(real.features[rows, first, column].mean() - made.features[rows, second, column].mean())

    assert gap(of_real, of_made) < 0.6 * gap(np.zeros(12, int), np.zeros(12, int))
