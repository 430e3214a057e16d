"""C2PA manifests (Content Credentials), verified by the reference library without a network.

The library is an extra (`provenance`): where it is not installed a manifest is still seen, and said to be unchecked.
"""

import json
import ssl
from collections.abc import Iterator, Sequence
from functools import cached_property
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any, Final

from serving.platform.errors import TrustListError
from serving.platform.records import read_record
from serving.provenance.blocks import MAX_MANIFEST_BYTES, Blocks
from serving.provenance.record import Credentials, Declared, strongest
from serving.provenance.signals import read_manifest_terms
from serving.provenance.vocabulary import source_type

MAX_FILE_BYTES: Final = 64 << 20
MAX_TRUST_LIST_BYTES: Final = 16 << 20
MAX_MANIFESTS: Final = 64
MAX_ACTIONS: Final = 256

_SIGNED: Final = "claimSignature.validated"
_TRUSTED: Final = "signingCredential.trusted"
_FITS: Final = frozenset(("assertion.dataHash.match", "assertion.bmffHash.match", "assertion.boxesHash.match"))
_BROKEN: Final = frozenset(
    (
        "assertion.bmffHash.mismatch",
        "assertion.boxesHash.mismatch",
        "assertion.dataHash.mismatch",
        "assertion.hashedURI.mismatch",
        "claimSignature.mismatch",
    )
)


class Verifier:
    """Reads manifests against a trust list. May be called from many threads."""

    def __init__(self, trust_lists: Sequence[Path] = ()) -> None:
        """Read the trust lists.

        Args:
            trust_lists: files of PEM certificates; none are shipped. Without any, no signer is trusted.

        Raises:
            TrustListError: a file is unreadable, too large, or holds no usable certificates; or a list is given where
                the library that reads manifests is not installed.
        """
        self._anchors = "\n".join(_read_trust_list(Path(path)) for path in trust_lists)
        if self._anchors and not self.installed:
            raise TrustListError(f"{trust_lists[0]}: a trust list needs c2pa-python; install the extra `provenance`")
        if self._anchors:
            try:
                _ = self._context
            except Exception as error:
                names = ", ".join(map(str, trust_lists))
                raise TrustListError(f"{names}: not a list of PEM certificates: {_first_line(error)}") from error

    @property
    def installed(self) -> bool:
        """Whether the library is there."""
        return find_spec("c2pa") is not None

    def verify(self, data: bytes, blocks: Blocks) -> Credentials:
        """Check the manifest that `blocks` found in `data`; never raises for any bytes."""
        found = None
        if self.installed and blocks.manifest_bytes <= MAX_MANIFEST_BYTES and len(data) <= MAX_FILE_BYTES:
            found = self._checked(data, blocks.media_type)
        return found or Credentials(present=True, declared=read_manifest_terms(blocks.manifest))

    def _checked(self, data: bytes, media_type: str) -> Credentials | None:
        import c2pa

        try:
            with c2pa.Reader(media_type, BytesIO(data), context=self._context) as reader:
                return _read(json.loads(reader.json()))
        except Exception:  # noqa: BLE001 - whatever the library makes of hostile bytes, the picture is still judged
            return None

    @cached_property
    def _context(self) -> Any:
        import c2pa

        settings: dict[str, Any] = {
            "version": 1,
            "verify": {
                # a manifest may name any address: nothing that came from outside makes this process connect
                "remote_manifest_fetch": False,
                "ocsp_fetch": False,
                "verify_trust": bool(self._anchors),
            },
        }
        if self._anchors:
            settings["trust"] = {"trust_anchors": self._anchors}
        return c2pa.Context.from_dict(settings)


def _read(store: dict[str, Any]) -> Credentials | None:
    active = store.get("active_manifest")
    manifests = store.get("manifests")
    results = (store.get("validation_results") or {}).get("activeManifest")
    if not isinstance(manifests, dict) or not isinstance(active, str) or not isinstance(results, dict):
        return None
    if active not in manifests:
        return None
    succeeded, failed = _codes(results, "success"), _codes(results, "failure")
    broken = bool(failed & _BROKEN)
    return Credentials(
        present=True,
        checked=True,
        intact=not broken and _SIGNED in succeeded and bool(succeeded & _FITS),
        broken=broken,
        trusted=_TRUSTED in succeeded,
        declared=_declared(manifests, active),
    )


def _declared(manifests: dict[str, Any], active: str) -> Declared:
    """What the active manifest says, in the light of what its ingredients say of themselves.

    A composite over a generated ingredient is edited; a manifest that names no source speaks for its parent's.
    """
    own = strongest(_source_types(manifests[active]))
    others = list(manifests.items())[:MAX_MANIFESTS]
    below = strongest(kind for label, manifest in others if label != active for kind in _source_types(manifest))
    if own in ("ai_generated", "ai_edited") or below in ("none", "capture"):
        return own if own != "none" else below
    parents = [i for i in _list(manifests[active], "ingredients") if i.get("relationship") == "parentOf"]
    return below if own == "none" and parents else "ai_edited"


def _source_types(manifest: dict[str, Any]) -> Iterator[Declared]:
    for assertion in _list(manifest, "assertions"):
        if str(assertion.get("label", "")).startswith("c2pa.actions"):
            data = assertion.get("data")
            for action in _list(data if isinstance(data, dict) else {}, "actions")[:MAX_ACTIONS]:
                yield source_type(str(action.get("digitalSourceType", "")).encode())


def _list(owner: dict[str, Any], name: str) -> list[dict[str, Any]]:
    found = owner.get(name)
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []


def _codes(results: dict[str, Any], outcome: str) -> set[str]:
    return {str(entry.get("code")) for entry in _list(results, outcome)}


def _read_trust_list(path: Path) -> str:
    try:
        text = read_record(path, MAX_TRUST_LIST_BYTES).decode("ascii")
    except OSError as error:
        raise TrustListError(
            f"{path}: no readable trust list ({error.strerror}); name a file of PEM certificates"
        ) from error
    except UnicodeDecodeError as error:
        raise TrustListError(f"{path}: not a list of PEM certificates, -----BEGIN CERTIFICATE----- each") from error
    try:
        # the library passes over what it cannot parse; OpenSSL does not
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=text)
    except (ssl.SSLError, ValueError) as error:
        raise TrustListError(f"{path}: not a list of PEM certificates, -----BEGIN CERTIFICATE----- each") from error
    return text


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
