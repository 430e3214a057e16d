"""Properties of hashing, searching and splitting, over generated inputs."""

import io
import tempfile
from collections.abc import Iterable
from pathlib import Path

import imagehash
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from components.verify_data import duplicates, scratch
from components.verify_data.copies import Copies
from components.verify_data.cutting import choose, linked
from components.verify_data.duplicates import near_pairs
from components.verify_data.inspection import inspect, perceptual_hashes
from components.verify_data.measurements import ROW, Survey
from components.verify_data.parallel import ordered_map

seeds = st.integers(0, 2**32 - 1)


def _digests(numbers: Iterable[int]) -> np.ndarray:
    return np.frombuffer(b"".join(int(number).to_bytes(32, "big") for number in numbers), "S32")


def _as_int(value: imagehash.ImageHash) -> int:
    return int(str(value), 16)


@given(seeds)
@settings(max_examples=40)
def test_hashes_are_those_of_imagehash(seed: int) -> None:
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 256, (3, 8, 8)).astype(np.uint8)
    grey = np.stack([np.asarray(Image.fromarray(g).resize((32, 32), Image.Resampling.BICUBIC)) for g in coarse])
    plain, mirrored = perceptual_hashes(grey)
    for picture, mine, mine_mirrored in zip(grey, plain.tolist(), mirrored.tolist(), strict=True):
        image = Image.fromarray(picture)
        assert mine == _as_int(imagehash.phash(image))
        assert mine_mirrored == _as_int(imagehash.phash(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)))


@given(seeds)
@settings(max_examples=20)
def test_a_batch_of_small_images_greys_as_pillow_does(seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (32, 32, 3)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    row = inspect([buffer.getvalue()]).table.to_pylist()[0]
    grey = np.asarray(Image.fromarray(pixels).convert("L"))
    assert row["hash"] == perceptual_hashes(grey[None])[0][0]
    assert row["brightness"] == pytest.approx(grey.mean(), abs=1e-3)


@given(seeds, st.integers(0, 12), st.integers(2, 120), st.integers(1, 3), st.sampled_from([2**21, 40]))
@settings(max_examples=90)
def test_the_search_finds_exactly_what_comparing_all_finds(
    seed: int, bits: int, n: int, agreeing: int, partition: int
) -> None:
    generator = np.random.default_rng(seed)
    centres = generator.integers(0, 2**64, 6, dtype=np.uint64)
    flips = generator.integers(0, 64, (2, n, bits + 2))
    hashes, mirrored = (
        np.bitwise_xor.reduce(np.uint64(1) << f.astype(np.uint64), axis=1) ^ generator.choice(centres, n) for f in flips
    )
    thumbnails = np.full((n, 16, 16), 128, np.uint8)
    with pytest.MonkeyPatch.context() as patch:
        # what many images are searched by: more blocks, and a part of the hashes at a time
        patch.setattr(duplicates, "_agreeing", lambda *_: agreeing if bits < 8 else 1)
        patch.setattr(scratch, "PIECE", partition)
        found = near_pairs(hashes, mirrored, thumbnails, np.arange(n), bits, 1.0)
    plain = np.bitwise_count(hashes[:, None] ^ hashes[None]) <= bits
    # the mirror image of one against the other, either way round
    turned = np.bitwise_count(hashes[:, None] ^ mirrored[None]) <= bits
    expected = {(i, j) for i, j in zip(*np.nonzero(plain | turned | turned.T), strict=True) if i < j}
    assert found.pairs[["left", "right"]].tolist() == sorted((int(i), int(j)) for i, j in expected)


@given(seeds, st.integers(0, 60), st.sampled_from([2**21, 7]))
@settings(max_examples=30)
def test_equal_digests_are_grouped_by_their_first_whatever_is_sorted_at_a_time(seed: int, n: int, piece: int) -> None:
    generator = np.random.default_rng(seed)
    rows = np.zeros(n, ROW)
    few = generator.integers(0, 256, (5, 32), np.uint8).view("S32").ravel()
    rows["pixel_sha256"] = few[generator.integers(0, 5, n)]
    rows["decoded"] = generator.integers(0, 4, n) > 0
    rows["split"], rows["label"] = generator.integers(0, 3, n), generator.integers(0, 2, n)
    rows["contrast"] = 50.0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scratch, "PIECE", piece)
        found = Copies(Survey(rows, np.zeros((n, 16, 16), np.uint8), np.zeros(0, np.uint8), {}))
    alike = [
        [i for i in range(n) if i == j or (rows["pixel_sha256"][i] == rows["pixel_sha256"][j] and decoded(rows, i, j))]
        for j in range(n)
    ]
    assert found.first.tolist() == [same[0] for same in alike]
    for attribute in ("label", "split"):
        mixed = {tuple(same) for same in alike if len({rows[attribute][i] for i in same}) > 1}
        assert list(map(tuple, found.mixed(attribute))) == sorted(mixed)
    compared = [
        j
        for j in range(n)
        if rows["decoded"][j] and not any(rows["split"][i] == rows["split"][j] for i in alike[j] if i < j)
    ]
    assert np.flatnonzero(found.compared).tolist() == compared


def decoded(rows: np.ndarray, *places: int) -> bool:
    return bool(rows["decoded"][list(places)].all())


def test_many_images_are_searched_in_small_buckets() -> None:
    assert [duplicates._agreeing(2 * images, 6) for images in (6_000, 1_000_000, 10_000_000)] == [1, 2, 3]


def test_a_search_that_is_cut_short_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def search(images: int) -> bool:
        hashes = np.full(images, 7, np.uint64)
        others = np.full(images, 2**60, np.uint64)
        return near_pairs(hashes, others, np.zeros((images, 16, 16), np.uint8), np.arange(images), 0, 1.0).cut_short

    monkeypatch.setattr(duplicates, "MAX_BUCKET", 5)
    assert not search(6), "each of six is compared with all five others"
    assert search(7)


@given(seeds, st.integers(4, 200), st.floats(0.05, 0.5), st.sampled_from([2**16, 7]))
@settings(max_examples=60)
def test_copies_never_part_and_order_does_not_matter(seed: int, n: int, fraction: float, piece: int) -> None:
    generator = np.random.default_rng(seed)
    digests = _digests(int(i) << 248 for i in generator.integers(0, max(2, n // 2), n))
    labels = generator.integers(0, 2, n)
    links = (generator.integers(0, n, 5), generator.integers(0, n, 5))
    chosen = choose(digests, labels, linked(*links), fraction, seed=1)
    by_digest: dict[bytes, set[bool]] = {}
    for digest, value in zip(digests.tolist(), chosen.tolist(), strict=True):
        by_digest.setdefault(digest, set()).add(value)
    assert all(len(values) == 1 for values in by_digest.values())
    assert (chosen[links[0]] == chosen[links[1]]).all()
    order = generator.permutation(n)
    place = np.argsort(order)
    with pytest.MonkeyPatch.context() as patch:
        # nor does what is held at a time
        patch.setattr(scratch, "PIECE", piece)
        shuffled = choose(digests[order], labels[order], linked(place[links[0]], place[links[1]]), fraction, seed=1)
    assert (shuffled == chosen[order]).all()


def test_the_share_of_validation_is_reached_in_both_classes() -> None:
    digests = _digests(range(1000))
    labels = np.arange(1000) % 4 // 3
    none = linked(np.empty(0, np.intp), np.empty(0, np.intp))
    chosen = choose(digests, labels, none, 0.1, seed=0)
    assert chosen[labels == 0].sum() == 75
    assert chosen[labels == 1].sum() == 25
    assert (chosen != choose(digests, labels, none, 0.1, seed=1)).any()


@pytest.mark.parametrize("name", ["short", "longer than the path of a socket may be " * 3])
def test_processes_give_what_one_process_gives(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / name).mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / name))
    batches = [[i, i + 1, i + 2] for i in range(200)]
    alone = list(ordered_map(sum, batches, workers=1))
    together = list(ordered_map(sum, iter(batches), workers=2, inline_s=0.0))
    assert together == alone == [(batch, sum(batch)) for batch in batches]
