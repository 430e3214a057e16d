"""The command blocks of README and guides: which there are, which are marked as not run, and why."""

import re
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.conftest import ROOT

PAGES = [
    ROOT / "README.md",
    *sorted(path for path in (ROOT / "docs").rglob("*.md") if "reference" not in path.parts),
]
_BLOCK = re.compile(
    r"(?:<!-- not run: (?P<reason>[^>]+?) -->\n+)?^ *```bash\n(?P<body>.*?)^ *```", re.DOTALL | re.MULTILINE
)
_EXIT = re.compile(r"#.*\bexit (\d)")


@dataclass(frozen=True)
class Command:
    """One command line of a page."""

    page: str
    text: str
    reason: str
    """Why it is not run; empty: it is."""
    exit_code: int

    def __str__(self) -> str:
        return f"{self.page}: {self.text}"


def commands(page: Path) -> list[Command]:
    """The commands of a page in their order; a trailing comment `exit 2` says with what one ends."""
    found = []
    for block in _BLOCK.finditer(page.read_text()):
        for line in block["body"].replace("\\\n", " ").splitlines():
            text = re.sub(r"\s+#\s.*", "", line).strip()
            if not text or text.startswith("#"):
                continue
            code = _EXIT.search(line)
            name = str(page.relative_to(ROOT))
            found.append(Command(name, " ".join(text.split()), block["reason"] or "", int(code[1]) if code else 0))
    return found
