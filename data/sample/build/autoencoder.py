"""An auto-encoder small enough for a laptop: eight numbers for 4x4 px, as the one of a latent diffusion model.

It is trained on photographs that stand in no split. A flow in its latents, which would invent pictures, was tried and
left out: what minutes of a laptop's processor teach it is noise.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own custom
from packages import Pixels
from torch import Tensor, nn

LATENTS: Final = 8
PART_PX: Final = 64


def _norm(width: int) -> nn.Module:
    return nn.GroupNorm(8, width)


class _Residual(nn.Module):
    def __init__(self, width: int, time_width: int = 0) -> None:
        super().__init__()
        self.one = nn.Sequential(_norm(width), nn.SiLU(), nn.Conv2d(width, width, 3, padding=1))
        self.two = nn.Sequential(_norm(width), nn.SiLU(), nn.Conv2d(width, width, 3, padding=1))
        self.when = nn.Linear(time_width, width) if time_width else None

    def forward(self, x: Tensor, when: Tensor | None = None) -> Tensor:
        """x and what is added to it."""
        inner = self.one(x)
        if self.when is not None and when is not None:
            inner = inner + self.when(when)[:, :, None, None]
        return x + self.two(inner)


class AutoEncoder(nn.Module):
    """Pictures (n, 3, h, w) in -1..1 to latents (n, 8, h / 4, w / 4) and back; 0.7 million parameters.

    The first three latents start as the mean colours of 4x4 px, so that little training goes into those.
    """

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(2), nn.Conv2d(12, 48, 3, padding=1), _Residual(48), nn.Conv2d(48, 96, 4, 2, 1),
            _Residual(96), _norm(96), nn.SiLU(), nn.Conv2d(96, LATENTS, 3, padding=1),
        )  # fmt: skip
        self.decoder = nn.Sequential(
            nn.Conv2d(LATENTS, 96, 3, padding=1), _Residual(96), _Residual(96), nn.Upsample(scale_factor=2),
            nn.Conv2d(96, 48, 3, padding=1), _Residual(48), _norm(48), nn.SiLU(), nn.Conv2d(48, 12, 3, padding=1),
            nn.PixelShuffle(2),
        )  # fmt: skip

    def encode(self, x: Tensor) -> Tensor:
        """Pictures to latents."""
        colours = F.avg_pool2d(x, 4)
        rest = torch.zeros(len(x), LATENTS - 3, *colours.shape[2:])
        return torch.cat([colours, rest], 1) + self.encoder(x).float()

    def decode(self, z: Tensor) -> Tensor:
        """Latents to pictures, beyond -1..1 at times."""
        return F.interpolate(z[:, :3], scale_factor=4.0, mode="bilinear") + self.decoder(z).float()


def _parts(pool: Pixels, count: int, side: int, rng: np.random.Generator) -> Tensor:
    """Random parts and reduced wholes of the pool's pictures as (count, 3, side, side) in -1..1."""
    whole, out = pool.shape[1], np.empty((count, side, side, 3), np.uint8)
    step = whole // side
    for k, row in enumerate(rng.integers(0, len(pool), count)):
        if step >= 2 and rng.random() < 0.5:
            box = pool[row].reshape(side, step, side, step, 3).mean((1, 3))
            out[k] = box
        else:
            y, x = rng.integers(0, whole - side + 1, 2)
            out[k] = pool[row, y : y + side, x : x + side]
        if rng.random() < 0.5:
            out[k] = out[k, :, ::-1]
    return torch.from_numpy(out).permute(0, 3, 1, 2).float() / 127.5 - 1


def _fit(model: nn.Module, loss: Callable[[], Tensor], rate: float, seconds: float, path: Path) -> None:
    """Train for so many seconds of processor time, with a cosine fall of the rate and an average of the weights."""
    start, done, spent = time.process_time(), 0, 0.0
    if path.exists():
        state = torch.load(path, weights_only=True)
        model.load_state_dict(state["model"])
        spent, done = state["spent"], state["done"]
    optimiser = torch.optim.AdamW(model.parameters(), rate, weight_decay=1e-4)
    mean = {key: value.clone() for key, value in model.state_dict().items()}
    shown = time.monotonic()
    while (used := spent + time.process_time() - start) < seconds:
        optimiser.param_groups[0]["lr"] = rate * (0.02 + 0.98 * (1 + np.cos(np.pi * used / seconds)) / 2)
        with torch.autocast("cpu", torch.bfloat16):
            value = loss()
        optimiser.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        done += 1
        for key, now in model.state_dict().items():
            mean[key].lerp_(now, max(0.005, 1 / (done + 1)))
        if time.monotonic() - shown > 20:
            shown = time.monotonic()
            print(f"auto-encoder: step {done}, {used:.0f} of {seconds:.0f} s, loss {value.item():.4f}", flush=True)
            torch.save({"model": model.state_dict(), "spent": used, "done": done}, path)
    model.load_state_dict(mean)
    torch.save({"model": model.state_dict(), "spent": seconds, "done": done}, path)


class Reconstructor:
    """The trained auto-encoder."""

    def __init__(self, weights: Path) -> None:
        self._weights, self._coder = weights, AutoEncoder()

    def train(self, pool: Pixels, seconds: float, seed: int) -> None:
        """Learn from pictures (n, 192, 192, 3) for so many seconds of processor time; goes on where it stopped."""
        torch.manual_seed(seed)
        rng = np.random.default_rng(seed)

        def recover() -> Tensor:
            x = _parts(pool, 8, PART_PX, rng)
            z = self._coder.encode(x)
            back = self._coder.decode(z + 0.03 * torch.randn_like(z)).float()
            fine = sum(F.l1_loss(back.diff(dim=d), x.diff(dim=d)) for d in (2, 3))
            return F.l1_loss(back, x) + fine + 1e-4 * z.float().square().mean()

        _fit(self._coder, recover, 2e-3, seconds, self._weights)
        self._coder.eval().requires_grad_(requires_grad=False)

    @torch.no_grad()
    def redraw(self, pictures: Pixels) -> Pixels:
        """Through the auto-encoder and back, (n, h, w, 3)."""
        x = torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1
        back = self._coder.decode(self._coder.encode(x)).float().clamp(-1, 1)
        return ((back + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
