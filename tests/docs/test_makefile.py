"""Every target of `make help` is run: by `.ci/run`, by the guides' own commands, by a script of infra/ci, or here."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from serving.settings import Settings
from tests.bundles import jpeg
from tests.docs.commands import PAGES, commands
from tests.docs.conftest import Clone, clone_to
from tests.docs.test_commands import runs_here
from tests.e2e.conftest import ROOT

HERE = {"format", "clean", "data", "bench", "soak", "lock", "mutate"}


def targets() -> list[str]:
    return re.findall(r"^([a-z][a-z-]*):.*?## ", (ROOT / "Makefile").read_text(), re.MULTILINE)


def runs(text: str, target: str) -> bool:
    return re.search(rf"\bmake (?:-\S+ |[A-Z_]+=\S+ )*{target}(?![a-z-])", text) is not None


def test_no_target_is_left_out() -> None:
    # DVC's page leaves its commands to the test that looks at what they make
    scripts = [(ROOT / name).read_text() for name in (".ci/run", "tests/docs/test_dvc.py")]
    scripts += [path.read_text() for path in (ROOT / "infra/ci").glob("*.sh")]
    guides = [command.text for page in PAGES for command in commands(page) if runs_here(command)]
    # the script behind `make images` is the first half of the one behind `make check-images`
    aliases = {"images": "check-images"}
    assert len(targets()) > 25
    left = [t for t in targets() if not any(runs(text, aliases.get(t, t)) for text in [*scripts, *guides])]
    assert set(left) == HERE, "each has a test below"


@pytest.mark.parametrize(("given", "processes"), [([], "auto"), (["TEST_PROCESSES=3"], "3")])
def test_so_many_test_processes_start(given: list[str], processes: str) -> None:
    told = subprocess.run(["make", "-n", "test", *given], cwd=ROOT, capture_output=True, text=True, check=True)
    assert re.search(r"pytest -n (\S+)", told.stdout + told.stderr)[1] == processes  # type: ignore[index]  # found
    # make hands what it was given to what it runs, where a server must not take it for a setting of its own
    assert "TEST_PROCESSES" not in {name.upper() for name in Settings.model_fields}


@pytest.mark.system
def test_lock_compiles_what_is_committed(tmp_path: Path) -> None:
    # a clone of its own: a lock written anew would have make install it into the environment that all clones share
    clone = clone_to(tmp_path)
    lock = clone.folder / "infra/requirements.txt"
    committed = lock.read_text()
    done = clone.sh("make lock")
    assert done.returncode == 0, done.stderr
    assert lock.read_text() == committed, "pyproject.toml was changed: run `make lock`"


def test_clean_removes_what_was_built_and_keeps_the_workspace(clone: Clone) -> None:
    for path in ("build/x", ".coverage.1", "workspace/mlflow.db"):
        (clone.folder / path).parent.mkdir(exist_ok=True)
        (clone.folder / path).touch()
    assert clone.sh("make clean").returncode == 0
    assert not (clone.folder / "build").exists()
    assert not (clone.folder / ".coverage.1").exists()
    assert (clone.folder / "workspace/mlflow.db").exists()


def test_format_puts_a_file_in_order_and_leaves_the_others(clone: Clone) -> None:
    ugly = clone.folder / "tests" / "ugly.py"
    ugly.write_text('"""Doc."""\nimport sys\nimport os\nprint( os.name,sys.path )\n')
    done = clone.sh("make format")
    assert done.returncode in (0, 2), done.stderr
    assert ugly.read_text() == '"""Doc."""\n\nimport os\nimport sys\n\nprint(os.name, sys.path)\n'
    assert clone.sh("git status --porcelain").stdout.split() == ["??", "tests/ugly.py"]
    ugly.unlink()


def test_data_without_the_hub_is_one_line(clone: Clone) -> None:
    done = clone.sh("make data", HF_ENDPOINT="http://127.0.0.1:9", HF_HUB_DOWNLOAD_TIMEOUT="1")
    assert done.returncode != 0
    said, make = done.stderr.splitlines()
    assert said.startswith("error: hf://dragonintelligence/CIFAKE-image-dataset: cannot be opened (")
    assert said.endswith("; check the name and the network, or give a downloaded copy as a folder")
    assert make.startswith("make") and make.endswith(" data] Error 1")
    assert not list(Path(clone.folder / "data").glob("cifake/*"))


@pytest.mark.system
@pytest.mark.slow
def test_a_short_soak_and_a_small_benchmark(clone: Clone) -> None:
    soak = clone.sh("make soak SOAK_MINUTES=0.75", OMP_NUM_THREADS="1")
    assert soak.returncode == 0, soak.stdout + soak.stderr
    assert re.search(r"^[\d,]+ answers: 200: ", soak.stdout, re.MULTILINE)
    bench = clone.sh("make bench BENCH='--only verify_data --images 2000 --factor 2'", OMP_NUM_THREADS="1")
    assert bench.returncode == 0, bench.stdout + bench.stderr
    assert re.search(r"verify_data +4,0\d\d images of 32 px: [\d,]+ images/s/core", bench.stdout)


@pytest.mark.system
@pytest.mark.nightly
def test_the_benchmarks_of_recipe_framing_and_decisions_run(clone: Clone) -> None:
    recipe = clone.sh("make bench BENCH='--only recipe --quick'", timeout_s=600, OMP_NUM_THREADS="1")
    assert recipe.returncode == 0, recipe.stdout + recipe.stderr
    assert re.search(r"^blur sigma 2 +\d+\.\d% +\d+\.\d% +[+-]\d+\.\d \[", recipe.stdout, re.MULTILINE)
    assert (clone.folder / "workspace/bench/recipe/evaluation/report.html").stat().st_size > 10_000
    framing = clone.sh("make bench BENCH='--only framing --quick --seeds 2'", timeout_s=900, OMP_NUM_THREADS="1")
    assert framing.returncode == 0, framing.stdout + framing.stderr
    found = json.loads((clone.folder / "workspace/bench/framing-quick.json").read_text())
    assert [row["cell"].split()[0] for row in found["rows"]] == [
        "clean",
        "canvas",
        "letterbox",
        "collage",
        "turn",
        "crop",
    ]
    for row in found["rows"]:
        figures = [*row["accuracy"].values(), *row["lost"].values(), row["difference"]]
        assert all(figure["low"] <= figure["value"] <= figure["high"] for figure in figures), row
        after, before = row["accuracy"]["after"]["value"], row["accuracy"]["before"]["value"]
        assert row["difference"]["value"] == pytest.approx(after - before)
    (photos := clone.folder / "photos").mkdir()
    (photos / "one.jpg").write_bytes(jpeg(200, (400, 300)))
    bundle = "workspace/bench/framing-quick/after-0 --data tests/sample64 --photos photos"
    decisions = clone.sh(f"make bench BENCH='--only decisions {bundle}'", timeout_s=600, OMP_NUM_THREADS="1")
    assert decisions.returncode == 0, decisions.stdout + decisions.stderr
    assert re.search(r"beyond \d+-\d+ px \| 1 \| 100\.0 % ", decisions.stdout)
    assert re.search(r"^\| 0\.05 \| \d+\.\d %, \d+\.\d % \|", decisions.stdout, re.MULTILINE)


@pytest.mark.system
@pytest.mark.nightly
def test_every_mutant_is_noticed_or_named(clone: Clone) -> None:
    done = clone.sh("make mutate", timeout_s=7200)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
