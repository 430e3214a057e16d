"""What may take a model's place: the bundle that was recorded, whole in every part, and nothing else."""

import hashlib
import json
import logging
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from prometheus_client import CollectorRegistry

from serving.app import create_app
from serving.detector.bundle import Manifest, read_manifest
from serving.lifecycle import LifecycleMetrics
from serving.platform.errors import BundleError
from serving.registry import resolve
from serving.served import ModelHolder, Served
from serving.settings import Settings
from tests.bundles import jpeg, make_bundle
from tests.serving.processes import free_port, load_refused
from tests.serving.test_registry import NAME, Bucket, register
from tests.serving.test_registry import bucket as bucket

BRIGHT = jpeg(205)


def seal_again(folder: Path, edit: Callable[[dict[str, Any]], None] = lambda _: None) -> None:
    """Make the manifest agree with the files, with `edit`ed members: whoever can write a folder can do as much."""
    path = folder / "manifest.json"
    document = json.loads(path.read_bytes())
    document.pop("digest")
    document["files"] = {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in document["files"]
        if (folder / name).is_file()
    }
    edit(document)
    try:
        digest = Manifest.model_validate(document).digest
    except (ValueError, RecursionError):
        digest = "0" * 64
    try:
        path.write_text(json.dumps({"digest": digest, **document}, indent=1, sort_keys=True, ensure_ascii=False) + "\n")
    except (ValueError, RecursionError):
        path.write_text("not JSON")


def replace(place: Path, other: Path) -> None:
    shutil.rmtree(place)
    shutil.copytree(other, place)


@pytest.fixture
def registry(toy_bundle: Path, migrated: Path, tmp_path: Path) -> str:
    """A registry whose champion is version 1, the toy bundle."""
    shutil.copy(migrated, tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    register(uri, toy_bundle, (tmp_path / "artifacts").as_uri(), "champion")
    return uri


def place_of(folder: Path, bundle: Path) -> Path:
    """Where the registry keeps the files of `bundle`."""
    digest = read_manifest(bundle).digest
    (found,) = (
        path.parent
        for path in folder.glob("artifacts/*/artifacts/bundle/manifest.json")
        if json.loads(path.read_bytes())["digest"] == digest
    )
    return found


def test_another_whole_bundle_in_a_versions_place_is_refused(
    registry: str, toy_bundle: Path, inverted_bundle: Path, tmp_path: Path
) -> None:
    uri = f"models:/{NAME}@champion"
    known = resolve(uri, tmp_path / "cache", registry)
    replace(place_of(tmp_path, toy_bundle), inverted_bundle)
    with pytest.raises(
        BundleError, match=rf"version 1 was registered with bundle {known.digest[:12]}, .* were replaced"
    ):
        resolve(uri, tmp_path / "other-cache", registry)
    # the copy that was fetched before is still the right one, unless that is replaced too
    assert resolve(uri, tmp_path / "cache", registry) == known
    replace(known.folder, inverted_bundle)
    with pytest.raises(BundleError, match="were replaced"):
        resolve(uri, tmp_path / "cache", registry)

    env = {"MODEL_URI": uri, "MLFLOW_TRACKING_URI": registry, "MODEL_CACHE_DIR": str(tmp_path / "third")}
    code, error = load_refused(**env, PORT=str(free_port()))
    assert code == 1
    assert error.startswith(f"error: {uri}: version 1 was registered with bundle {known.digest[:12]}")
    assert error.count("\n") == 1


def test_a_foreign_successor_leaves_the_champion_and_is_counted(
    registry: str, toy_bundle: Path, inverted_bundle: Path, tmp_path: Path
) -> None:
    settings = Settings(
        model_uri=f"models:/{NAME}@champion",
        mlflow_tracking_uri=registry,
        model_cache_dir=tmp_path / "cache",
        rate_limit_enabled=False,
    )
    app = create_app(settings)
    with TestClient(app) as client:
        holder = app.state.service.champion
        successor = make_bundle(tmp_path / "successor", seed=3)
        register(registry, successor, None, "champion")
        place = place_of(tmp_path, successor)
        shutil.move(place, tmp_path / "kept")
        shutil.copytree(inverted_bundle, place)
        assert not holder.refresh()
        assert client.get("/model").json()["version"] == "1"
        assert client.post("/predict", files={"file": BRIGHT}).json()["prediction"] == "ai_generated"
        failures = 'aidetect_model_refresh_failures_total{model="champion"}'
        assert f"{failures} 1.0" in client.get("/metrics").text
        # put right, it takes over at the next look
        replace(place, tmp_path / "kept")
        assert holder.refresh()
        assert client.get("/model").json()["version"] == "2"
        assert not holder.refresh()


def test_a_version_nobody_recorded_a_digest_for_is_refused(registry: str, tmp_path: Path) -> None:
    from mlflow.tracking import MlflowClient

    MlflowClient(registry, registry).delete_model_version_tag(NAME, "1", "digest")
    with pytest.raises(BundleError, match=r"version 1 has no tag 'digest', .* register it with: aidetect run"):
        resolve(f"models:/{NAME}/1", tmp_path / "cache", registry)


def test_a_folder_in_a_bucket_holds_the_bundle_it_is_named_by(
    bucket: Bucket, toy_bundle: Path, inverted_bundle: Path, tmp_path: Path
) -> None:
    digest = read_manifest(toy_bundle).digest
    for folder, source in ((digest, toy_bundle), ("e" * 64, toy_bundle), (f"x/{digest}", inverted_bundle)):
        for path in source.rglob("*"):
            if path.is_file():
                bucket.objects[f"{folder}/{path.relative_to(source).as_posix()}"] = path.read_bytes()
    assert resolve(f"gs://b/{digest}/", tmp_path).digest == digest
    for wrong in (f"gs://b/{'e' * 64}", f"gs://b/x/{digest}"):
        with pytest.raises(BundleError, match="the folder's name says bundle"):
            resolve(wrong, tmp_path)


@pytest.mark.parametrize("name", ["release", "verdict", "evaluation"])
def test_a_bundle_beside_anothers_release_is_refused(toy_bundle: Path, tmp_path: Path, name: str) -> None:
    folder = Path(shutil.copytree(toy_bundle, tmp_path / "copy"))
    (folder / "release").mkdir()
    record = folder / "release" / f"{name}.json"
    record.write_text(json.dumps({"bundle_digest": read_manifest(folder).digest}))
    assert resolve(str(folder), tmp_path).release.keys() == {name}
    record.write_text(json.dumps({"bundle_digest": "f" * 64}))
    with pytest.raises(BundleError, match=f"its {name}.json is of bundle ffffffffffff"):
        resolve(str(folder), tmp_path)
    for damaged in ("[" * 10_000, "[]", '{"bundle_digest": 3', '{"test": {"metrics": 3}}'):
        record.write_text(damaged)
        with pytest.raises(BundleError, match=f"{name}.json: .*register the bundle again"):
            resolve(str(folder), tmp_path)


def test_a_digest_that_deploy_names_is_held(toy_bundle: Path, inverted_bundle: Path, tmp_path: Path) -> None:
    digest = read_manifest(toy_bundle).digest
    assert resolve(str(toy_bundle), tmp_path, digest=digest).digest == digest
    code, error = load_refused(MODEL_URI=str(inverted_bundle), MODEL_DIGEST=digest, PORT=str(free_port()))
    assert code == 1
    assert f"MODEL_DIGEST says bundle {digest[:12]}" in error
    assert error.count("\n") == 1


def test_a_folder_replaced_between_the_look_and_the_load_is_refused(
    toy_bundle: Path, inverted_bundle: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(toy_bundle, tmp_path / "copy"))
    found = resolve(str(folder), tmp_path)
    replace(folder, inverted_bundle)
    with pytest.raises(BundleError, match="replaced while it was being loaded"):
        Served.load(found)


def test_a_version_by_name_is_loaded_once(toy_bundle: Path, tmp_path: Path) -> None:
    holder = ModelHolder(str(toy_bundle), tmp_path, version="seven")
    first = holder.load()
    assert first.version == "seven"
    assert not holder.refresh()
    assert holder.current is first


# --- damage -------------------------------------------------------------------------------------------------------

DEEP: Any = []
for _ in range(600):
    DEEP = [DEEP]

VALUES = [
    None,
    -1,
    0,
    10**400,
    1e999,
    float("nan"),
    "",
    "\ud800",
    "../../etc/passwd",
    [],
    {},
    [[]],
    DEEP,
    True,
    "x" * 99,
]


def mutate(value: Any, chance: random.Random) -> Any:
    """The document with one member, somewhere, changed, removed or added."""
    if isinstance(value, dict) and value and chance.random() < 0.8:
        key = chance.choice(sorted(value))
        return (
            {**value, key: mutate(value[key], chance)}
            if chance.random() < 0.8
            else {k: v for k, v in value.items() if k != key}
        )
    if isinstance(value, list) and value and chance.random() < 0.6:
        at = chance.randrange(len(value))
        return [*value[:at], mutate(value[at], chance), *value[at + 1 :]]
    return chance.choice(VALUES)


def scramble(data: bytes, chance: random.Random) -> bytes:
    """Bytes cut, flipped, doubled or replaced."""
    at = chance.randrange(len(data))
    return chance.choice(
        [
            data[:at],
            data[:at] + bytes([data[at] ^ 1 << chance.randrange(8)]) + data[at + 1 :],
            data[:at] + chance.randbytes(64) + data[at:],
            b"",
            b"[" * 100_000,
            chance.randbytes(200),
        ]
    )


def damage(folder: Path, chance: random.Random) -> str:
    """Damage a bundle in one way out of many, mostly sealed again; returns what was done."""
    kind = chance.choice(["bytes", "reference", "manifest", "deep", "missing", "release"])
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    victim = chance.choice(files)
    if kind == "bytes":
        victim.write_bytes(scramble(victim.read_bytes(), chance))
    elif kind == "reference":
        victim = folder / "reference.json"
        victim.write_text(json.dumps(mutate(json.loads(victim.read_bytes()), chance)))
    elif kind == "missing":
        victim.unlink()
        if chance.random() < 0.3:
            victim.mkdir()
    elif kind == "release":
        (folder / "release").mkdir()
        victim = folder / "release" / chance.choice(["release.json", "verdict.json", "evaluation.json"])
        victim.write_text(json.dumps(mutate({"bundle_digest": "0" * 64, "test": {"metrics": {}}}, chance)))
    again = victim.name != "manifest.json" and chance.random() < 0.8
    if kind == "manifest":
        mutated = mutate(json.loads((folder / "manifest.json").read_bytes()), chance)
        if isinstance(mutated, dict):
            seal_again(folder, lambda document: document.update({k: v for k, v in mutated.items() if k != "digest"}))
        else:
            (folder / "manifest.json").write_text(json.dumps(mutated))
    elif kind == "deep":
        depth = chance.choice([150, 400, 900, 30_000])
        if depth < 500:
            seal_again(folder, lambda document: document["provenance"].update(train_config={"x": DEEP}))
        else:
            text = (folder / "manifest.json").read_text()
            (folder / "manifest.json").write_text(text.replace('"train_config": {}', f'"train_config": {"[" * depth}'))
    elif again:
        seal_again(folder)
    return f"{kind} of {victim.name}{' sealed again' if again else ''}"


def test_no_damage_ends_the_refresh_or_swaps_a_part(
    toy_bundle: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    current = tmp_path / "current"
    current.symlink_to(toy_bundle)
    settings = Settings(model_uri=str(current), model_cache_dir=tmp_path / "cache", rate_limit_enabled=False)
    app = create_app(settings)
    chance = random.Random(17)
    good = read_manifest(toy_bundle).digest
    with TestClient(app) as client, caplog.at_level(logging.CRITICAL):
        holder = app.state.service.champion
        for index in range(200):
            folder = Path(shutil.copytree(toy_bundle, tmp_path / "damaged" / str(index)))
            said = damage(folder, chance)
            current.unlink()
            current.symlink_to(folder)
            before = holder.current
            if holder.refresh():
                # what took over is whole: harmless edits of a manifest that was sealed again
                assert client.get("/model").status_code == client.get("/drift").status_code == 200, said
            else:
                assert holder.current is before, said
            shutil.rmtree(folder)
        assert client.post("/predict", files={"file": BRIGHT}).status_code == 200
        (counted,) = re.findall(r'refresh_failures_total{model="champion"} (\d+)', client.get("/metrics").text)
        current.unlink()
        current.symlink_to(toy_bundle)
        holder.refresh()
        assert client.get("/model").json()["digest"] == good
        assert client.post("/predict", files={"file": BRIGHT}).json()["prediction"] == "ai_generated"
    assert int(counted) > 150


def test_a_panic_is_logged_counted_and_survived(
    toy_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    metrics = LifecycleMetrics(CollectorRegistry(), None)
    holder = ModelHolder(str(toy_bundle), tmp_path, on_failure=lambda: metrics.refresh_failed("champion"))
    first = holder.load()

    class Panic(BaseException):
        """What a Rust library raises when it gives up."""

    def panics(*_: object) -> None:
        raise Panic("index out of\nbounds")

    monkeypatch.setattr("serving.served.resolve", panics)
    assert not holder.refresh()
    assert holder.current is first
    assert "the current model stays: Panic: index out of" in caplog.text
