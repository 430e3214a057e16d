"""The one question: what does this file say of itself?"""

from typing import Final

from serving.provenance.blocks import Blocks, find_blocks
from serving.provenance.credentials import Verifier
from serving.provenance.record import NO_CREDENTIALS, SILENT, Credentials, Provenance, Source, conclude
from serving.provenance.signals import names_remote_manifest, read_block


def inspect(data: bytes, verifier: Verifier | None = None) -> Provenance:
    """Read an image file's statements about its own making.

    Args:
        data: the file; of any kind, damaged or hostile ones included: nothing here raises for them.
        verifier: checks a C2PA manifest where there is one; None: a manifest is reported unchecked.
    """
    blocks = find_blocks(data)
    if not blocks.found and not blocks.has_manifest:
        return SILENT
    sources: list[Source] = []
    for block in blocks.found:
        sources.extend(read_block(block))
    return conclude(sources, _credentials(data, blocks, verifier or _UNINSTALLED))


class _Uninstalled(Verifier):
    @property
    def installed(self) -> bool:
        return False


_UNINSTALLED: Final = _Uninstalled()


def _credentials(data: bytes, blocks: Blocks, verifier: Verifier) -> Credentials:
    if blocks.has_manifest:
        return verifier.verify(data, blocks)
    remote = any(block.kind == "xmp" and names_remote_manifest(block.body) for block in blocks.found)
    return Credentials(present=True, remote=True) if remote else NO_CREDENTIALS
