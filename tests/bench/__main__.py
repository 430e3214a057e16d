"""`make bench`: every measured target in one run, one after another, on a machine that should be quiet.

Other arguments go to the benchmark chosen by `--only`.
"""

import argparse
import subprocess
import sys
from pathlib import Path

BENCHES = (
    "tests.bench.bench_verify_data",
    "tests.bench.bench_training",
    "tests.bench.bench_serving",
    "tests.bench.bench_evidence",
    "tests.bench.bench_catalogue",
)
ON_DEMAND = (
    "tests.bench.bench_recipe",
    "tests.bench.bench_framing",
    "tests.bench.bench_decisions",
    "tests.bench.bench_explain",
    "tests.bench.bench_peers",
    "tests.bench.bench_engines",
)
"""Run only when named: whole trainings, about accuracy instead of speed; packages of others from a network; a bundle
that was trained; a part of another."""


def main() -> int:
    """Run the benches; the exit status says whether all of them ran to their end (a missed target is printed)."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench",
        description=__doc__,
        epilog="Other arguments go to the benchmark chosen by --only.",
    )
    parser.add_argument("--only", choices=[name.rpartition("bench_")[2] for name in (*BENCHES, *ON_DEMAND)])
    options, others = parser.parse_known_args()
    if others and not options.only:
        parser.error(f"{' '.join(others)}: arguments of one benchmark; choose it by --only")
    root = Path(__file__).resolve().parents[2]
    failed = []
    chosen = [name for name in (*BENCHES, *ON_DEMAND) if name.endswith(options.only)] if options.only else BENCHES
    for name in chosen:
        print(f"\n=== {name.rpartition('.')[2]}", flush=True)
        if subprocess.run([sys.executable, "-m", name, *others], cwd=root).returncode:
            failed.append(name)
    if failed:
        print(f"did not run to the end: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
