"""Runs every workflow with act in the situations that matter, and asserts which commands ran, in which order, with what.

What is real: the workflow files, composite actions and reusable workflows, conditions, outputs, `run` lines. What stands in: the
third-party actions (an empty composite action each, with the outputs ours read), `gh`, and the commands `make` and `aidetect`, which
write down how they were called. A target that the Makefile lacks, or a flag that `aidetect VERB --help` does not list, fails there.
OIDC, environments, protection rules and the real actions are not rehearsed.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DIGEST = "sha256:" + "ab" * 32
USES = re.compile(r"uses:\s+([\w.-]+/[\w.-]+(?:/[\w./-]+)?)@([0-9a-f]{40})\s")
OUTPUTS = {
    "docker/build-push-action": {"digest": DIGEST},
    "google-github-actions/auth": {"access_token": "no-access-token"},
}
REQUIRED_INPUTS = {
    "docker/build-push-action": ["context", "file", "target", "push", "tags"],
    "google-github-actions/auth": ["workload_identity_provider", "service_account"],
    "docker/login-action": ["registry", "username", "password"],
    "anchore/sbom-action": ["image", "output-file"],
    "actions/attest-build-provenance": ["subject-name", "subject-digest"],
    "actions/attest-sbom": ["subject-name", "subject-digest", "sbom-path"],
    "actions/upload-artifact": ["name", "path"],
}
VARS = {
    "GCP_PROJECT": "project",
    "GCP_REGION": "europe-west1",
    "GCP_WORKLOAD_IDENTITY_PROVIDER": "provider",
    "GCP_BUILD_SERVICE_ACCOUNT": "build@project",
    "GCP_DEPLOY_SERVICE_ACCOUNT": "deploy@project",
    "GCP_TRAIN_SERVICE_ACCOUNT": "train@project",
    "GCP_PREVIEW_SERVICE_ACCOUNT": "preview@project",
    "PIPELINE_SERVICE_ACCOUNT": "pipeline@project",
    "PIPELINE_BUCKET": "gs://bucket",
    "IMAGE_REGISTRY": "registry.test",
    "IMAGE_REPOSITORY": "registry.test/project/images",
    "LEDGER_URI": "gs://bucket/promotions.jsonl",
    "MLFLOW_TRACKING_URI": "https://mlflow.test",
    "SERVICE_URL": "https://service.test",
    "TORCH_CPU_INDEX": "https://index.test/cpu",
    "TORCH_CUDA_INDEX": "https://index.test/cuda",
}
IMAGE = "registry.test/project/images/{}@" + DIGEST

MAKE = """#!/usr/bin/env bash
set -eu
echo "make $*" >> "$CALLS"
case "$1" in -*) echo "make stand-in: flags are not expected: $*" >&2; exit 2;; esac
[ "$1" = .venv/.installed ] || grep -qE "^$1:" Makefile || { echo "make stand-in: the Makefile has no target $1" >&2; exit 2; }
if [ "$1" = compile ]; then mkdir -p build; echo '{}' > build/pipeline.json; fi
"""
AIDETECT = """#!/usr/bin/env bash
set -eu
echo "aidetect $*" >> "$CALLS"
env | grep '^AIDETECT_' | sort >> "$CALLS.env"
[ -z "${REAL_AIDETECT:-}" ] || python3 "$CHECK_FLAGS" "$REAL_AIDETECT" "$@"
if [ "$1" = "${FAILING_VERB:-}" ]; then exit "$FAILING_CODE"; fi
case " $* " in *" --json "*) echo '{"url": "https://pr-7---service.test"}';; esac
"""
GH = """#!/usr/bin/env bash
echo "gh $*" >> "$CALLS"
"""
CHECK_FLAGS = '''"""Fails when a verb or flag of the call is not in `aidetect VERB --help`."""
import subprocess, sys
real, verb, *arguments = sys.argv[1:]
shown = subprocess.run([real, verb, "--help"], capture_output=True, text=True, env={"PATH": "/usr/bin:/bin", "COLUMNS": "250"})
if shown.returncode:
    sys.exit(f"aidetect has no verb {verb!r}")
unknown = [a for a in arguments if a.startswith("--") and a not in shown.stdout]
if unknown:
    sys.exit(f"aidetect {verb} has no {', '.join(unknown)}")
'''


@dataclass
class Scenario:
    """One event, and what must come of it."""

    name: str
    workflow: str
    event: str
    payload: dict = field(default_factory=dict)
    failing: tuple[str, int] = ("", 0)
    succeeds: bool = True
    calls: list[str] = field(default_factory=list)
    """Each a piece of a recorded call; they must appear in this order."""
    never: list[str] = field(default_factory=list)


PR = {"number": 7, "pull_request": {"number": 7, "head": {"repo": {"full_name": "owner/repo"}}}, "repository": {"full_name": "owner/repo"}}
CHECKS = ["make lint", "make test", "make run", "make compile", "make check-static", "make check-terraform", "make check-images", "make check-compose"]
SCENARIOS = [
    Scenario("ci: a pull request", "ci.yml", "pull_request", {**PR, "action": "opened"}, calls=[], never=["aidetect", "gh "]),
    Scenario(
        "cd: a push to main", "cd.yml", "push",
        calls=["make", "gh attestation verify oci://" + IMAGE.format("serving"), "aidetect deploy --profile production --image " + IMAGE.format("serving"),
               "aidetect smoke https://service.test"],
        never=["aidetect rollback"],
    ),
    Scenario(
        "cd: the smoke test fails", "cd.yml", "push", failing=("smoke", 1), succeeds=False,
        calls=["aidetect deploy", "aidetect smoke", "aidetect rollback --profile production --summary"],
    ),
    Scenario(
        "cd: the deployment fails", "cd.yml", "push", failing=("deploy", 1), succeeds=False,
        calls=["aidetect deploy"], never=["aidetect smoke", "aidetect rollback"],
    ),
    Scenario(
        "model-training: by hand", "model-training.yml", "workflow_dispatch", {"inputs": {"epochs": "3", "batch_size": "32", "auto_deploy": "true"}},
        calls=["aidetect run --on vertex --profile production --sync --reason dispatch --set train.epochs=3 --set train.batch_size=32 --set deploy.auto=true",
               "aidetect smoke https://service.test"],
        never=["aidetect retrain"],
    ),
    Scenario(
        "model-training: the gate refuses", "model-training.yml", "workflow_dispatch", {"inputs": {"epochs": "3", "batch_size": "32", "auto_deploy": "true"}},
        failing=("run", 2), succeeds=False, calls=["aidetect run"], never=["aidetect smoke", "aidetect deploy"],
    ),
    Scenario(
        "model-training: not to be deployed", "model-training.yml", "workflow_dispatch", {"inputs": {"epochs": "3", "batch_size": "32", "auto_deploy": "false"}},
        calls=["--set deploy.auto=false"], never=["aidetect smoke"],
    ),
    Scenario(
        "model-training: the weekly look", "model-training.yml", "schedule",
        calls=["aidetect retrain --on vertex --profile production --sync"], never=["aidetect run", "aidetect smoke"],
    ),
    Scenario(
        "pr-preview: opened", "pr-preview.yml", "pull_request", {**PR, "action": "opened"},
        calls=["aidetect deploy --profile production --image " + IMAGE.format("serving") + " --tag pr-7 --no-traffic --json",
               "aidetect smoke https://pr-7---service.test", "gh pr comment 7"],
        never=["--remove-tag"],
    ),
    Scenario("pr-preview: closed", "pr-preview.yml", "pull_request", {**PR, "action": "closed"},
             calls=["aidetect deploy --profile production --remove-tag pr-7"], never=["aidetect smoke", "--image"]),
    Scenario("pr-preview: from a fork", "pr-preview.yml", "pull_request",
             {**PR, "action": "opened", "pull_request": {"number": 7, "head": {"repo": {"full_name": "stranger/repo"}}}},
             never=["aidetect", "make", "gh "]),
]  # fmt: skip


def git(folder: Path, *arguments: str) -> None:
    """One git command, as nobody in particular."""
    subprocess.run(["git", "-c", "user.name=act", "-c", "user.email=act@localhost", *arguments], cwd=folder, check=True, capture_output=True)


def stand_in(folder: Path, action: str) -> None:
    """A git repository with an action that checks its inputs and answers with fixed outputs."""
    folder.mkdir(parents=True)
    outputs, inputs = OUTPUTS.get(action, {}), REQUIRED_INPUTS.get(action, [])
    lines = ["name: stand-in", f"description: stands in for {action}", "inputs:" if inputs else "inputs: {}"]
    lines += [f"  {name}: {{description: given, required: true}}" for name in inputs]
    lines += ["outputs:" if outputs else "outputs: {}"]
    lines += [f"  {name}: {{description: fixed, value: '{value}'}}" for name, value in outputs.items()]
    lines += ["runs:", "  using: composite", "  steps:"]
    for number, name in enumerate(inputs):
        lines += ["    - shell: bash", f"      env: {{VALUE: '${{{{ inputs.{name} }}}}'}}", f"      run: test -n \"$VALUE\" # {number}: {name}"]
    lines += ["    - {shell: bash, run: 'true'}"]
    (folder / "action.yml").write_text("\n".join(lines) + "\n")
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "stand-in")


def used_actions() -> set[tuple[str, str]]:
    """Every third-party action that a workflow or composite action names, with its sha."""
    files = [*ROOT.glob(".github/workflows/*.yml"), *ROOT.glob(".github/actions/*/action.yml")]
    return {match for file in files for match in USES.findall(file.read_text() + "\n")}


def prepare(work: Path, real_aidetect: str) -> tuple[list[str], dict[str, str]]:
    """The checkout that act runs in, its stand-ins and stand-in commands; returns act's arguments and environment."""
    repo, commands = work / "repo", work / "bin"
    repo.mkdir()
    commands.mkdir()
    shutil.copytree(ROOT / ".github", repo / ".github")
    shutil.copy(ROOT / "Makefile", repo)
    git(repo, "init", "-q", "-b", "main")
    git(repo, "remote", "add", "origin", "https://github.com/owner/repo.git")
    git(repo, "add", ".")
    git(repo, "commit", "-q", "-m", "rehearsal")
    for name, text in {"make": MAKE, "aidetect": AIDETECT, "gh": GH}.items():
        (commands / name).write_text(text)
        (commands / name).chmod(0o755)
    (work / "check_flags.py").write_text(CHECK_FLAGS)
    arguments = ["-P", "ubuntu-24.04=-self-hosted", "--no-cache-server"]
    for action, sha in sorted(used_actions()):
        folder = work / "actions" / action / sha
        if not folder.exists():
            stand_in(folder, action)
        arguments += ["--local-repository", f"{action}@{sha}={folder}"]
    for name, value in VARS.items():
        arguments += ["--var", f"{name}={value}"]
    arguments += ["-s", "GITHUB_TOKEN=no-token", "-s", "SMOKE_API_KEY=no-key"]
    environment = {
        "PATH": f"{commands}:{os.environ['PATH']}",
        "HOME": str(work),
        "XDG_CACHE_HOME": str(work / "cache"),
        "XDG_CONFIG_HOME": str(work / "config"),
        "CHECK_FLAGS": str(work / "check_flags.py"),
        "REAL_AIDETECT": real_aidetect,
    }
    return arguments, environment


def rehearse(scenario: Scenario, work: Path, arguments: list[str], environment: dict[str, str], verbose: bool) -> list[str]:
    """Run one scenario; returns what was wrong with it."""
    calls = work / "calls.txt"
    calls.write_text("")
    event = work / "event.json"
    event.write_text(json.dumps(scenario.payload))
    verb, code = scenario.failing
    environment = {**environment, "CALLS": str(calls), "FAILING_VERB": verb, "FAILING_CODE": str(code)}
    done = subprocess.run(
        ["act", scenario.event, "-W", f".github/workflows/{scenario.workflow}", "-e", str(event), *arguments],
        cwd=work / "repo", env=environment, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    log = done.stdout + done.stderr
    if verbose:
        print(log)
    recorded = calls.read_text()
    wrong = [f"ended {'well' if done.returncode == 0 else 'badly'}"] if (done.returncode == 0) != scenario.succeeds else []
    position = 0
    for piece in scenario.calls:
        found = recorded.find(piece, position)
        if found < 0:
            wrong.append(f"{piece!r} did not run{' in its place' if piece in recorded else ''}")
        else:
            position = found
    wrong += [f"{piece!r} ran" for piece in scenario.never if piece in recorded]
    if scenario.workflow == "ci.yml":
        wrong += [f"{piece!r} did not run" for piece in CHECKS if piece not in recorded]
    if wrong:
        wrong += ["recorded calls:", *("  " + line for line in recorded.splitlines())]
        wrong += ["act:", *("  " + line for line in log.splitlines() if "❌" in line or "rror" in line or "stand-in:" in line)]
    return wrong


def main() -> int:
    """Run the scenarios chosen; 1 when any went wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("only", nargs="?", default="", help="run only the scenarios whose name contains this")
    parser.add_argument("--verbose", action="store_true", help="print act's own output")
    options = parser.parse_args()
    real = ROOT / ".venv/bin/aidetect"
    if not real.exists():
        print("FAILED: .venv/bin/aidetect is missing; run: make .venv/.installed", file=sys.stderr)
        return 1
    bad = 0
    with tempfile.TemporaryDirectory() as folder:
        arguments, environment = prepare(Path(folder), str(real))
        for scenario in SCENARIOS:
            if options.only not in scenario.name:
                continue
            wrong = rehearse(scenario, Path(folder), arguments, environment, options.verbose)
            print(f"{'FAILED' if wrong else 'ok    '}  {scenario.name}", *wrong, sep="\n        ")
            bad += bool(wrong)
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
