"""`python -m tests.hostile --url http://127.0.0.1:8080 --seconds 60`: attack a server on loopback, print what happened.

First every attack alone, for a little while, then all at once for `--seconds`. The server has to let an honest client
ask twice a second (RATE_LIMIT_PREDICT=150/minute); whatever else it limits may stay as it is. Exit code 0 where the
honest client was served and nothing but 503 with Retry-After came from 500 on.
"""

import argparse
import signal
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass
from urllib.parse import urlsplit

import psutil

from tests.hostile.attacks import ATTACKS, Attacker
from tests.hostile.honest import Asked, Honest

MIB = 2**20
SERVED_SHARE = 0.95
SERVED_P95_S = 2.0
"""What a quiet machine owes the honest client; above it a row says `SLOW`."""
FAILED_P95_S = 10.0
"""What even a machine that others use may not exceed: the client shares its cores with twelve attackers."""


@dataclass(frozen=True)
class Row:
    """What one attack, or all of them, came to."""

    name: str
    answers: Counter[str]
    rss_growth_mib: float
    honest: list[Asked]

    @property
    def served(self) -> float:
        """Share of the honest client's requests that were answered 200."""
        return sum(a.status == 200 for a in self.honest) / max(1, len(self.honest))

    @property
    def p95_s(self) -> float:
        """95th percentile of the honest client's waiting time, failures included."""
        waits = sorted(a.seconds for a in self.honest)
        return waits[int(0.95 * (len(waits) - 1))] if waits else 0.0

    @property
    def faults(self) -> Counter[str]:
        """Answers that no client may get: 5xx but 503 with Retry-After."""
        found = Counter({name: n for name, n in self.answers.items() if name[0] == "5" and name != "503"})
        return found + Counter(str(a.status) for a in self.honest if a.status >= 500 and a.status != 503)

    @property
    def passed(self) -> bool:
        """Whether the honest client was served and nobody met a fault."""
        return self.served >= SERVED_SHARE and self.p95_s < FAILED_P95_S and not self.faults

    @property
    def word(self) -> str:
        """How the row reads."""
        if not self.passed:
            return "FAIL"
        return "ok  " if self.p95_s < SERVED_P95_S else "SLOW"

    def __str__(self) -> str:
        mix = ", ".join(f"{name}: {count}" for name, count in sorted(self.answers.items()))
        statuses = Counter(a.status for a in self.honest)
        return (
            f"{self.name:<26} {self.rss_growth_mib:>7.0f} MiB  {self.served:>6.1%} of {len(self.honest):>3}  "
            f"{self.p95_s:>6.2f} s  {self.word}  {mix}" + ("" if self.passed else f"  [honest: {dict(statuses)}]")
        )


HEAD = f"{'attack':<26} {'RSS growth':>11}  {'honest: 200':>13}  {'p95':>8}  {'':<4}  answers to the attacker"


def server_of(url: str) -> psutil.Process:
    """The process that listens there."""
    port = urlsplit(url).port or 80
    for found in psutil.net_connections("tcp"):
        if found.status == psutil.CONN_LISTEN and found.laddr and found.laddr.port == port and found.pid:
            return psutil.Process(found.pid)
    raise SystemExit(f"error: nobody listens on port {port}; start the server first")


def run(name: str, attacks: list[str], url: str, seconds: float, process: psutil.Process, key: str = "") -> Row:
    """Let these attacks loose at once."""
    parts = urlsplit(url)
    stop = threading.Event()
    attackers = {
        one: Attacker(parts.hostname or "127.0.0.1", parts.port or 80, f"127.0.1.{1 + list(ATTACKS).index(one)}", stop)
        for one in attacks
    }
    before = process.memory_info().rss
    peak = [before]

    def watch() -> None:
        while not stop.wait(0.05):
            peak[0] = max(peak[0], process.memory_info().rss)

    threads = [threading.Thread(target=ATTACKS[one], args=(attackers[one],), daemon=True) for one in attacks]
    with Honest(url, key) as honest:
        for thread in (*threads, watcher := threading.Thread(target=watch, daemon=True)):
            thread.start()
        time.sleep(seconds)
    stop.set()
    for thread in (*threads, watcher):
        thread.join(35)
    answers = sum((attacker.answers for attacker in attackers.values()), Counter[str]())
    return Row(name, answers, (peak[0] - before) / MIB, honest.asked)


def main() -> int:
    """Attack, print the table; 0 where the server held."""
    parser = argparse.ArgumentParser(prog="python -m tests.hostile", description=__doc__)
    parser.add_argument("--url", required=True, help="a server on loopback")
    parser.add_argument("--seconds", type=float, default=60.0, help="of all attacks at once")
    parser.add_argument("--each", type=float, default=4.0, help="seconds of each attack alone; 0: none")
    parser.add_argument("--only", nargs="*", choices=sorted(ATTACKS), help="these attacks alone")
    parser.add_argument("--key", default="", help="the honest client's API key")
    parser.add_argument("--max-rss-mib", type=float, default=0.0, help="the memory it is given; 0: not checked")
    parser.add_argument("--terminate", type=float, default=0.0, metavar="S", help="TERM at the end; it has S seconds")
    given = parser.parse_args()
    if not (urlsplit(given.url).hostname or "").startswith(("127.", "localhost")):
        raise SystemExit("error: the hostile client attacks loopback addresses only")
    process = server_of(given.url)
    chosen = given.only or list(ATTACKS)
    print(HEAD, flush=True)
    rows = []
    for name in chosen if given.each else ():
        rows.append(run(name, [name], given.url, given.each, process, given.key))
        print(rows[-1], flush=True)
    rows.append(run("all at once", chosen, given.url, given.seconds, process, given.key))
    print(rows[-1], flush=True)
    held = all(row.passed for row in rows)
    rss = process.memory_info().rss / MIB
    print(f"memory now {rss:.0f} MiB; largest growth {max(row.rss_growth_mib for row in rows):.0f} MiB", flush=True)
    if given.max_rss_mib:
        held = held and rss + rows[-1].rss_growth_mib < given.max_rss_mib
    if given.terminate:
        held = _end(process, given.terminate) and held
    return 0 if held else 1


def _end(process: psutil.Process, within_s: float) -> bool:
    started = time.monotonic()
    process.send_signal(signal.SIGTERM)
    while _runs(process):
        if time.monotonic() - started > within_s + 30:
            print(f"TERM: still running after {within_s + 30:g} s")
            return False
        time.sleep(0.05)
    seconds = time.monotonic() - started
    print(f"TERM: ended after {seconds:.1f} s (promised: {within_s:g} s)")
    return seconds <= within_s


def _runs(process: psutil.Process) -> bool:
    """Whether it has not ended; one that its parent has not asked for yet has."""
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


if __name__ == "__main__":
    sys.exit(main())
