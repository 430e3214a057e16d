"""What each of several machines reads and keeps of the training data, and the room that it needs."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.artifacts.context import RunContext
from components.artifacts.dataset import TRAIN, Dataset, shard_name
from components.train.config import TrainConfig
from components.train.dataset import decode_train, decode_validation, open_validation
from components.train.pairs import paired_order
from components.train.shards import Part, rows_of_part, scored_by, validated_here
from components.train.stage import train
from serving.platform.errors import StageError
from tests.components.train.packed import TINY


@given(st.integers(2, 3000), st.integers(1, 5), st.integers(0, 99))
def test_machines_keep_disjoint_parts_of_equal_length(n: int, machines: int, seed: int) -> None:
    labels = np.zeros(n, dtype=np.float32)
    parts = [rows_of_part(None, labels, seed, Part(machine, machines)) for machine in range(machines)]
    assert {len(part) for part in parts} == {n // machines}
    together = np.concatenate(parts)
    assert len(np.unique(together)) == len(together)
    assert all((np.diff(part) > 0).all() for part in parts)


@given(st.integers(2, 60), st.integers(2, 4), st.integers(0, 99))
def test_a_photo_and_what_was_made_of_it_are_on_one_machine(twins: int, machines: int, seed: int) -> None:
    sources = np.repeat([f"s{number}" for number in range(twins)], 2)
    labels = np.tile([0, 1], twins).astype(np.float32)
    parts = [rows_of_part(sources, labels, seed, Part(machine, machines)) for machine in range(machines)]
    for part in parts:
        assert len(part) == twins // machines * 2
        # and every epoch of this machine puts them side by side
        order = part[paired_order(sources[part], labels[part], (seed, 0), 0, 1)].reshape(-1, 2)
        assert (sources[order[:, 0]] == sources[order[:, 1]]).all()


@given(st.integers(1, 80), st.integers(1, 4), st.integers(1, 3))
def test_each_validation_image_is_scored_once_and_put_back_in_its_place(n: int, machines: int, processes: int) -> None:
    everybody = machines * processes
    for rank in range(everybody):
        part = Part(rank // processes, machines, processes)
        kept = validated_here(n, part)
        # what `Ranks.interleave` takes of a rank
        assert kept[scored_by(len(kept), part, rank % processes)].tolist() == list(range(n))[rank::everybody]
        assert len(kept) == n if part.is_first else len(kept) <= -(-n // everybody) * processes


def test_many_images_are_dealt_in_runs_and_few_still_mix() -> None:
    few, many = (rows_of_part(None, np.zeros(n, dtype=np.float32), 0, Part(0, 2)) for n in (1_000, 1_000_000))
    # a machine reads about half of the row groups of a large split, and not all of them
    assert len(np.unique(many // 4096)) < 0.6 * 1_000_000 / 4096
    # of data sorted by class each machine has both alike
    assert (few < 500).sum() == pytest.approx(250, abs=60)


def test_a_machine_reads_the_row_groups_of_its_part_only(toy_data: Path, tmp_path: Path) -> None:
    table = pq.read_table(toy_data / "train.parquet")
    packed = tmp_path / "packed"
    packed.mkdir()
    (packed / "dataset.json").write_bytes((toy_data / "dataset.json").read_bytes())
    for number in range(3):
        pq.write_table(table.slice(number * 32, 32), packed / shard_name(TRAIN, number, 3), row_group_size=10)
    dataset = Dataset(packed)
    whole = list(dataset.images(TRAIN))
    for chosen in ([], [0], [31, 32, 63, 95], list(range(96)), [40, 41]):
        rows = np.array(chosen, dtype=np.int64)
        assert list(dataset.images_of(TRAIN, rows, 4)) == [(row, whole[row]) for row in chosen]
    # what lies in other row groups may be lost: nobody looks at it
    first = packed / shard_name(TRAIN, 0, 3)
    with pq.ParquetFile(first) as file:
        column = file.metadata.row_group(3).column(0)
    content, begin = bytearray(first.read_bytes()), column.dictionary_page_offset or column.data_page_offset
    content[begin : begin + column.total_compressed_size] = bytes(column.total_compressed_size)
    first.write_bytes(content)
    assert [row for row, _ in dataset.images_of(TRAIN, np.arange(30), 4)] == list(range(30))
    with pytest.raises((OSError, pa.ArrowException)):
        list(dataset.images(TRAIN))


def test_each_machine_keeps_its_part_of_the_decoded_images(toy_data: Path, tmp_path: Path) -> None:
    dataset, config = Dataset(toy_data), TrainConfig.model_validate(TINY)
    whole = decode_train(dataset, tmp_path, config)
    kept = 0
    for machine in range(3):
        (folder := tmp_path / str(machine)).mkdir()
        part = decode_train(dataset, folder, config, Part(machine, 3))
        rows = rows_of_part(None, whole.labels, config.seed, Part(machine, 3))
        assert np.array_equal(part.pixels, whole.pixels[rows])
        assert np.array_equal(part.labels, whole.labels[rows])
        assert part.real_per_generated == whole.real_per_generated
        kept += (folder / "train.npy").stat().st_size
        decode_validation(dataset, folder, config, Part(machine, 3))
        seen = open_validation(dataset, folder, config)  # as the machine's other processes do
        assert (len(seen.inputs), len(seen.native)) == ((48, 48) if machine == 0 else (16, 0))
    assert kept < (tmp_path / "train.npy").stat().st_size + 3 * 256


@pytest.mark.parametrize(
    ("room", "changes", "words"),
    [
        # 48 images of 64 px as served; of 96 + 48 kept at 48 px a quarter has room at 24 px, which is below the least
        (48 * 64**2 * 3 + 144 * 24**2 * 3, {}, "raise train.cache_bytes, or share"),
        (48 * 64**2 * 3 + 144 * 40**2 * 3, {}, "set train.cache_px to 40 at most, or raise train.cache_bytes"),
        (10, {"views": "native", "input_px": 32}, "raise train.cache_bytes, or share"),
    ],
)
def test_images_that_have_no_room_are_refused_before_one_is_decoded(
    toy_data: Path, tmp_path: Path, room: int, changes: dict[str, object], words: str
) -> None:
    config = TrainConfig.model_validate(TINY | {"cache_bytes": room, "scratch_dir": str(tmp_path / "s")} | changes)
    with pytest.raises(StageError, match=rf"96 for training and 48 for .* train.cache_bytes allows {room:,}; {words}"):
        train(toy_data, tmp_path / "b", config, RunContext(run_id="r"))
    assert list((tmp_path / "s").iterdir()) == []
    # what is named as the way out is one
    if "cache_px" in words:
        fits = config.model_copy(update={"cache_px": 40})
        assert decode_train(Dataset(toy_data), tmp_path, fits).pixels.shape == (96, 1, 40, 40, 3)


def test_a_disk_that_is_too_small_is_told_with_its_room(
    toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("", (), {"free": 1000})())
    config = TrainConfig.model_validate(TINY | {"scratch_dir": str(tmp_path / "s")})
    with pytest.raises(StageError, match=r"1,000 are free in .*set train.scratch_dir to a larger disk"):
        train(toy_data, tmp_path / "b", config, RunContext(run_id="r"))
