"""What evaluation measures and how thoroughly; the section `evaluate` of pipeline_config.yaml."""

from typing import Literal

from pydantic import Field, field_validator

from serving.platform.frozen import Section

CorruptionName = Literal["jpeg", "webp", "resize", "blur", "noise", "canvas", "letterbox", "collage", "turn", "crop"]

_RANGES: dict[str, tuple[float, float]] = {
    "jpeg": (1, 100),
    "webp": (1, 100),
    "resize": (0.1, 4.0),
    "blur": (0.1, 20.0),
    "noise": (0.001, 0.5),
    "canvas": (0.1, 0.99),
    "letterbox": (0.1, 0.99),
    "collage": (2, 4),
    "turn": (90, 270),
    "crop": (0.2, 0.99),
}

_STEPS: dict[str, int] = {"collage": 1, "turn": 90}


class EvaluateConfig(Section):
    """Knobs of the stage evaluate; the defaults are those of production."""

    champion_uri: str = "models:/{model_name}@champion"
    """What the candidate is compared with; empty: with nothing. `{model_name}` is that of the run."""
    outside: str = ""
    """Labelled photos that have nothing to do with the training, `{real,ai_generated}/*` in a folder or under `gs://`:
    how often the model is sure and wrong there is told and, by `gate.max_confident_errors_outside`, judged."""
    robustness: dict[CorruptionName, tuple[float, ...]] = {
        "jpeg": (95, 85, 75, 60, 50),
        "webp": (80,),
        "resize": (0.5, 0.75, 1.5),
        "blur": (0.4, 0.6, 1.0),
        "noise": (0.04,),
        "canvas": (0.5,),
        "letterbox": (0.6,),
        "collage": (2,),
        "turn": (90,),
        "crop": (0.7,),
    }
    """Corruptions and their levels: quality, scale there and back, sigma in native pixels, sigma as share of 255; the
    photo's share of a white canvas's side and of a black letterbox's height, photos a side of a collage, degrees of a
    turn, share of each side that a crop keeps."""
    robustness_images: int = Field(2000, ge=0)
    """Test images (half of each class) the corruptions are tried on; 0: all of them."""
    slice_min_images: int = Field(30, ge=1)
    calibration_bins: int = Field(15, ge=2, le=100)
    bootstrap_draws: int = Field(2000, ge=200)
    paired_draws: int = Field(10_000, ge=200)
    gallery_images: int = Field(8, ge=0, le=50)
    """Worst false positives, and as many worst false negatives, shown with their heatmaps."""
    latency_runs: int = Field(50, ge=3)
    batch_size: int = Field(16, ge=1, le=512)
    threads: int = Field(0, ge=0)
    """Images are decoded and scored on so many threads; 0: one for each core."""
    seed: int = 0

    @field_validator("robustness")
    @classmethod
    def _levels_in_range(cls, value: dict[str, tuple[float, ...]]) -> dict[str, tuple[float, ...]]:
        for name, levels in value.items():
            low, high = _RANGES[name]
            for level in levels:
                if not low <= level <= high:
                    raise ValueError(f"{name}: level {level:g} is outside {low:g} to {high:g}")
                if name in _STEPS and level % _STEPS[name]:
                    raise ValueError(f"{name}: level {level:g} is no multiple of {_STEPS[name]}")
        return value

    @field_validator("champion_uri")
    @classmethod
    def _only_known_fields(cls, value: str) -> str:
        try:
            value.format(model_name="x")
        except (KeyError, IndexError, ValueError) as error:
            raise ValueError(f"{value!r}: the only field it may hold is {{model_name}}") from error
        return value
