"""Why an image is refused: the one table of reasons, each with a sentence for a seller and one for an engineer."""

from dataclasses import dataclass
from typing import Final

from serving.platform.errors import ImageRefusedError, Refusal

ACCEPTED: Final = "JPEG, PNG, WebP, AVIF, HEIC or GIF"


@dataclass(frozen=True, slots=True)
class Sentences:
    """What a reason means, to each of its readers."""

    seller: str
    """What somebody who only has the photo can do."""
    engineer: str
    """What the code stands for; the detail of each refusal adds the figures."""


REASONS: Final[dict[Refusal, Sentences]] = {
    "empty": Sentences(
        "The file is empty. Choose the photo again and upload it once more.",
        "zero bytes came where an image was expected",
    ),
    "unsupported_type": Sentences(
        f"This is no photo of a kind that can be checked. Save it as {ACCEPTED} and upload that.",
        f"judged by its bytes, whatever name or header say, the file is not {ACCEPTED}",
    ),
    "corrupt": Sentences(
        "The photo is damaged: part of it is missing. Save or export it again and upload the new file.",
        "the header cannot be read, or more than 5 % of the picture's rows are missing",
    ),
    "too_many_pixels": Sentences(
        "The photo is too large to be checked. Upload a smaller version, for instance 4000 pixels wide.",
        "the header claims more pixels than the cap, or decoding them would take more memory than the cap",
    ),
    "too_small": Sentences(
        "The photo is too small to be checked. Upload the original, not a thumbnail.",
        "a side has fewer pixels than the minimum",
    ),
    "file_too_large": Sentences(
        "The file is too large. Upload a smaller version, or save it as JPEG.",
        "the file has more bytes than the cap",
    ),
}


def damaged(detail: str) -> ImageRefusedError:
    """A refusal as `corrupt`."""
    return ImageRefusedError("corrupt", detail)


def rows_missing(name: str, share: float) -> ImageRefusedError:
    """A refusal because only `share` (0 to 1) of the picture's rows could be read."""
    return damaged(
        f"the {name} data is damaged: only {100 * share:.0f} % of its rows could be read, at least "
        f"{100 * LEAST_ROWS:.0f} % are needed; send the whole file"
    )


LEAST_ROWS: Final = 0.95
"""Share of a picture's rows that must be there for it to be judged."""
