"""No log line shows a variable's value, none is long, and in JSON mode all are JSON: real processes."""

import json
import subprocess
import sys
import time

import pytest

SECRET = "a-secret-that-stands-in-a-variable"

PROGRAM = """
import logging, sys, threading, warnings
{configure}
import structlog
def fail(api_key, n):
    big = ["x" * 100_000] * 20
    if n:
        return fail(api_key, n - 1)
    raise ValueError("y" * 3_000_000)
try:
    fail({secret!r}, 30)
except ValueError as error:
    structlog.get_logger("serving").error("unhandled error", exc_info=error)
    logging.getLogger("uvicorn.error").error("Exception in ASGI application", exc_info=error)
warnings.warn("something odd")
for n in range(5000):
    logging.getLogger("PIL.TiffImagePlugin").warning("entry %d", n)
    warnings.warn(f"odd entry {{n}}")
thread = threading.Thread(target=fail, args=({secret!r}, 0))
thread.start(); thread.join()
fail({secret!r}, 2)
"""

CONFIGURED = {
    "json": "from serving.telemetry.logs import configure_logging; configure_logging('INFO', 'json')",
    "console": "from serving.telemetry.logs import configure_logging; configure_logging('INFO', 'console')",
    "never configured": "import serving.app",
}


@pytest.mark.parametrize("form", CONFIGURED)
def test_whatever_fails_is_told_shortly_and_without_values(form: str) -> None:
    program = PROGRAM.format(configure=CONFIGURED[form], secret=SECRET)
    started = time.process_time()
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert time.process_time() - started < 20
    assert done.returncode == 1
    assert f"api_key='{SECRET}'" not in done.stdout + done.stderr
    assert "api_key = " not in done.stdout + done.stderr
    # the program's own text shows the secret where it was started, never as the value of a variable
    assert "locals" not in done.stdout
    assert len(done.stdout) < 400_000
    if form == "never configured":
        assert "Traceback (most recent call last)" in done.stdout
        return
    assert done.stderr == ""
    if form == "json":
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        assert len(lines) < 200
        assert all(len(line.get("stack_trace", "")) < 10_000 for line in lines)
        unhandled = [line for line in lines if line["message"] == "unhandled error"]
        assert len(unhandled) == 3, "the caught one, the thread's and the program's own"
        assert all("ValueError" in line["stack_trace"] and line["severity"] == "ERROR" for line in unhandled)


def test_nothing_is_said_of_lines_that_nobody_reads() -> None:
    program = f"{CONFIGURED['json']}; import logging, sys; sys.stdin.read(); logging.getLogger('serving').warning('a')"
    with subprocess.Popen(
        [sys.executable, "-c", program + "; sys.stdout = None"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.communicate(timeout=120)[1] == b""
    assert process.returncode == 0
