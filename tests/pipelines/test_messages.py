"""What a new user reads: one line that names the thing and the fix, and files that are found from anywhere."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from pipelines.cli.app import app, one_line
from pipelines.config import load_config
from pipelines.runs import new_run
from pipelines.targets.log import LogReader
from tests.pipelines.conftest import Aidetect

ROOT = Path(__file__).resolve().parents[2]
NO_SERVER = "tracking.uri=http://127.0.0.1:1"
VERBS = "'local', 'docker', 'vertex', 'kubeflow'"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "--on", "k8s"], f"Invalid value for '--on': 'k8s' is not one of {VERBS}; see: aidetect run --help"),
        (["compile", "--target", "gke", "-o", "x.json"], f"'gke' is not one of {VERBS}; see: aidetect compile --help"),
        (["frobnicate"], "No such command 'frobnicate'; see: aidetect --help"),
        (["runs", "shw"], "No such command 'shw'"),
        (["predict"], "Missing argument 'images'; see: aidetect predict --help"),
        (["run", "--set", "epochs=1"], "epochs: unknown key; did you mean 'train.epochs'?"),
        (["run", "--set", "train.epoch=1"], "train.epoch: unknown key; did you mean 'train.epochs'?"),
        (["run", "--set", "gate.epochs=1"], "gate.epochs: unknown key; did you mean 'train.epochs'?"),
        (["run", "--set", "gate.accuracy=1"], "gate.accuracy: unknown key; did you mean 'gate.min_accuracy'?"),
        (["schedule", "plan", "--set", "schedule.cron=* *"], "schedule.cron: a cron has five fields"),
        (["compile", "-o", "nodir/p.json"], "nodir/p.json: there is no folder nodir; make it first: mkdir -p nodir"),
        (["explain", "README.md", "-o", "nodir/x.png"], "make it first: mkdir -p nodir"),
        (["train", "--dataset", "d", "-o", "b", "--curves", "nodir/c.html"], "make it first: mkdir -p nodir"),
        (
            ["explain", "nothing.jpg", "-o", "x.png"],
            "there is no file nothing.jpg; check the path; see: aidetect explain",
        ),
        (
            ["explain", "docs", "-o", "{tmp}/x.png"],
            "docs is a folder; name one photo in it, or judge them all: aidetect predict docs; see: "
            "aidetect explain --help",
        ),
        (["runs", "show", "abc"], "there are none yet; start one: aidetect run"),
        (["gate", "20200101-000000"], "no run '20200101-000000' in "),
        (["run", "--resume", "20200101-000000"], "no run '20200101-000000' in "),
        (["serve"], "no model yet: nothing was registered in sqlite:///"),
        (["predict", "README.md"], "train one with: aidetect run"),
        (
            ["models", "--set", NO_SERVER],
            "http://127.0.0.1:1: no answer (Connection refused); is the MLflow server running?",
        ),
        (["rollback", "--set", NO_SERVER], "http://127.0.0.1:1: no answer (Connection refused)"),
        (["predict", "README.md", "--set", NO_SERVER], "http://127.0.0.1:1: no answer (Connection refused)"),
        (["promote", "9"], "no model yet: nothing was registered in sqlite:///"),
        (["rollback"], "no model yet: nothing was registered in sqlite:///"),
        (["deploy"], "no model yet: nothing was registered in sqlite:///"),
        (["run", "--data", "nowhere"], "nowhere: no such folder or table; give the folder of the images"),
        (
            ["run", "--data", "README.md"],
            "README.md: is no table (.csv, .tsv, .parquet); give the folder of the images",
        ),
        (["run", "--data", "{tmp}"], ": an empty folder; give the folder of the images, gs://BUCKET/PREFIX"),
        (["run", "--data", "gs://"], "gs://: names no images; give the folder of the images, gs://BUCKET/PREFIX"),
        (
            ["run", "--data", "s3://shop/photos"],
            "s3://shop/photos: nothing here reads s3://; give the folder of the",
        ),
        (
            ["predict", "README.md", "--model", "tests"],
            "tests: no readable manifest.json; not a model bundle (No such file or "
            "directory); give the folder that training made",
        ),
        (["predict", "README.md", "--model", "nowhere"], "nowhere: no such folder; give a bundle's folder or models:/"),
        (["config", "show", "--config", "docs"], "docs: is a directory; name a file in it"),
        (["run", "--on", "vertex"], "a tag may move under a cached run; aidetect bootstrap builds, pushes and pins"),
        (
            ["train", "--dataset", "docs", "-o", "{tmp}/b"],
            "docs: no dataset.json; not a dataset packed by verify_data, make one with: aidetect data import",
        ),
        (
            ["drift", "--url", "localhost:1"],
            "localhost:1: no address of a service; give it as http://HOST:PORT or https://HOST",
        ),
        (
            ["drift", "--url", "http://127.0.0.1:1"],
            "http://127.0.0.1:1/drift: no answer (Connection refused); is it running?",
        ),
    ],
)
def test_a_mistake_is_one_line_that_says_what_to_do(
    aidetect: Aidetect, tmp_path: Path, words: list[str], message: str
) -> None:
    words = [word.replace("{tmp}", str(tmp_path)) for word in words]
    ran = aidetect(*words, settings=[f"paths.workspace={tmp_path / 'w'}"] if "shw" not in words[1:] else None)
    assert ran.code == 1
    assert message in ran.err
    assert len(ran.err.splitlines()) == 1 and ran.err.startswith("error: ")
    for leak in ("Value error", "Errno", "Traceback", "LookupError", ".;"):
        assert leak not in ran.err
    assert list(tmp_path.iterdir()) == [], "a refused verb leaves nothing"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["inspect", "nothing.jpg"], "nothing.jpg: no such file or directory; check the path"),
        (["inspect", "docs"], "docs: is a folder; name photo files"),
        (
            ["inspect", "README.md"],
            "README.md: is no JPEG, PNG, WebP, AVIF, HEIC or GIF file, whose statements are read; name photo files",
        ),
        (
            ["score", "docs", "-o", "docs/../docs", "--model", "{toy}"],
            "docs: results would lie among the photos; name another folder, e.g. -o docs/../docs/results",
        ),
        (["inspect", "/dev/zero"], "/dev/zero: is no regular file; name photo files"),
        (
            ["inspect", "docs/example.png", "--trust-list", "README.md"],
            "README.md: not a list of PEM certificates, -----BEGIN CERTIFICATE----- each",
        ),
        (
            ["inspect", "docs/example.png", "--trust-list", "nowhere.pem"],
            "nowhere.pem: no readable trust list (No such file or directory); name a file of PEM certificates",
        ),
        (["run", "--resume"], "Option '--resume' requires an argument; see: aidetect run --help"),
        (
            ["run", "--resume", ""],
            "Invalid value for '--resume': an empty text; give a value, or leave the option out; "
            "see: aidetect run --help",
        ),
        (
            ["score", "", "-o", "results"],
            "Invalid value for 'source': an empty text; give a value, or leave the option out; "
            "see: aidetect score --help",
        ),
        (
            ["deploy", "--remove-tag="],
            "Invalid value for '--remove-tag': an empty text; give a value, or leave the option out; "
            "see: aidetect deploy --help",
        ),
        (
            ["predict", "README.md", "--model", "gs://shop/model"],
            "gs://shop/model: cannot be read: no Google credentials; run: gcloud auth application-default login",
        ),
        (
            ["--debug", "runs", "show", "--json=3"],
            "Option '--json' does not take a value; see: aidetect runs show --help",
        ),
    ],
)
def test_so_it_is_without_settings(
    aidetect: Aidetect,
    toy_bundle: Path,
    words: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("STORAGE_EMULATOR_HOST", "GOOGLE_APPLICATION_CREDENTIALS"):
        monkeypatch.delenv(name, raising=False)
    # neither a login's file nor a machine of Google's that would give credentials
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    ran = aidetect(*(word.replace("{toy}", str(toy_bundle)) for word in words))
    assert (ran.code, ran.out, ran.err) == (1, "", f"error: {message}\n")


def test_every_verb_shows_its_help_and_refuses_in_one_line_what_it_does_not_know(aidetect: Aidetect) -> None:
    def walk(command: Any, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        yield path
        for name, below in getattr(command, "commands", {}).items():
            yield from walk(below, (*path, name))

    known = list(walk(typer.main.get_command(app), ()))
    assert len(known) > 30
    for words in known:
        shown, refused = aidetect(*words, "--help"), aidetect(*words, "--nonsense")
        assert (shown.code, shown.err) == (0, "") and "Usage: aidetect" in shown.out, words
        assert (refused.code, len(refused.err.splitlines()), refused.out) == (1, 1, ""), words


@pytest.mark.parametrize("words", [[], ["data"], ["config"], ["schedule"]])
def test_a_group_without_a_verb_shows_its_help(aidetect: Aidetect, words: list[str]) -> None:
    ran = aidetect(*words)
    assert (ran.code, ran.err) == (0, "")
    assert "Usage: aidetect" in ran.out and "Commands" in ran.out


def test_the_version_names_the_revision(aidetect: Aidetect, monkeypatch: pytest.MonkeyPatch) -> None:
    assert aidetect("--version").out.startswith("aidetect 0.")
    monkeypatch.setenv("GIT_SHA", "c0ffee")
    monkeypatch.setenv("PATH", "")  # an image holds no git
    assert aidetect("--version").out.endswith("(revision c0ffee)\n")


def test_a_shell_can_complete(aidetect: Aidetect) -> None:
    assert "--install-completion" in aidetect("--help").out


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (FileNotFoundError(2, "No such file or directory", "a/b"), "a/b: no such file or directory; check the path"),
        (
            PermissionError(13, "Permission denied", "a"),
            "a: permission denied; you may not; check its owner and rights",
        ),
        (OSError(28, "No space left on device", "a"), "a: no space left on device; make room or choose another disk"),
        # as of a write through a library, which names no file
        (OSError(28, "No space left on device"), "no space left on device; make room or choose another disk"),
        (OSError(122, "Disk quota exceeded", "a"), "a: disk quota exceeded; make room or choose another disk"),
        # as a library's own error tells of it
        (
            RuntimeError("I/O error: No space left on device (os error 28)"),
            "no space left on device; make room or choose another disk",
        ),
        (KeyError("x"), "KeyError: 'x' (run with --debug for the traceback)"),
    ],
)
def test_the_systems_errors_name_file_and_fix(error: Exception, line: str) -> None:
    assert one_line(error) == line


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ("OSError: [Errno 28] No space left on device: '/d/x y'", "/d/x y: no space left on device; make room or"),
        ("OSError: [Errno 28] No space left on device", "no space left on device; make room or choose another disk"),
        (
            "OSError: [Errno 28] Error writing bytes to file. Detail: [errno 28] No space left on device",
            "no space left on device; make room or choose another disk",
        ),
        (
            "sqlalchemy.exc.OperationalError: (sqlite3.OperationalError) database or disk is full",
            "no space left on device; make room or choose another disk",
        ),
        ("PermissionError: [Errno 13] Permission denied: '/a'", "/a: permission denied; you may not; check its owner"),
        ("ConnectionRefusedError: [Errno 111] Connection refused", "ConnectionRefusedError: Connection refused"),
        ("serving.platform.errors.StageError: one of ours", "one of ours"),
        ("ValueError: x", "ValueError: x"),
    ],
)
def test_a_stages_own_trouble_with_a_disk_is_told_as_a_verbs_is(tmp_path: Path, said: str, line: str) -> None:
    record = new_run(tmp_path, "local", "sample", "manual", "c0ffee")
    reader = LogReader(record, lambda record, said: None)
    for text in (
        "12:00:00.000 - INFO - Executing task 'train'",
        "    Traceback (most recent call last):",
        f"    {said}",
    ):
        reader.read(f"{text}\n")
    assert reader.last_error.startswith(line) and "rrno" not in reader.last_error


def test_reading_writes_nothing(aidetect: Aidetect, tmp_path: Path) -> None:
    for words in (["models"], ["models", "--json"], ["runs"], ["runs", "list", "--json"], ["config", "show"], ["cost"]):
        assert aidetect(*words, settings=[f"paths.workspace={tmp_path / 'w'}"]).code == 0, words
    assert list(tmp_path.iterdir()) == []


def test_the_configuration_is_found_from_a_folder_below(
    aidetect: Aidetect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tmp_path / "project"
    (project / "docs" / "deep").mkdir(parents=True)
    (project / "pipeline_config.yaml").write_text(
        "base: {train: {weights_uri: w.pth, weights_sha256: x}}\nprofiles: {sample: {}}"
    )
    monkeypatch.chdir(project / "docs" / "deep")
    for words in ([], ["--config", "../../pipeline_config.yaml"]):
        shown = aidetect("config", "show", "--json", *words).document
        assert shown["paths"]["workspace"] == str(project / "workspace")
        assert shown["data"]["uri"] == str(project / "data/sample")
        assert shown["train"]["weights_uri"] == str(project / "w.pth")
        assert shown["evaluate"]["champion_uri"].startswith("models:/")
    # what is typed is meant from where one stands
    shown = aidetect("config", "show", "--json", settings=["data.uri=mine"]).document
    assert shown["data"]["uri"] == "mine"
    monkeypatch.chdir(tmp_path)
    missing = aidetect("config", "show")
    assert missing.code == 1 and "in any folder above it; cd into the project or pass --config" in missing.err


@pytest.mark.parametrize("text", ["010", "a # b", "a: b", "no", "1e3", "[x", "{", "2026-01-01", "~"])
def test_a_text_is_taken_as_it_stands(text: str) -> None:
    file = ROOT / "pipeline_config.yaml"
    config = load_config("sample", [f"vertex.network={text}", f"vertex.labels.team={text}"], file, {})
    assert (config.vertex.network, config.vertex.labels) == (text, {"team": text})
    environ = {"AIDETECT_VERTEX__NETWORK": text}
    assert load_config("sample", [], file, environ).vertex.network == text


def test_what_is_no_text_is_still_read_as_yaml() -> None:
    sets = ["train.epochs=7", "deploy.auto=false", "evaluate.robustness={jpeg: [90]}", "vertex.labels={a: b}"]
    config = load_config("sample", sets, ROOT / "pipeline_config.yaml", {})
    assert (config.train.epochs, config.deploy.auto, config.vertex.labels) == (7, False, {"a": "b"})


def test_a_broken_pipe_complains_of_nothing(tmp_path: Path) -> None:
    code = "from pipelines.cli import main; main()"
    done = subprocess.run(
        f"{sys.executable} -c '{code}' config schema | head -c 10", shell=True, cwd=ROOT, capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ('{\n "$defs"', "")
