"""A latent diffusion model small enough for a laptop: an auto-encoder (4 px a latent) and a flow in its latents.

Both are trained on photographs that stand in no split. The flow goes straight from noise to latents (rectified flow);
it learns from parts and from reduced wholes of 96 px, and as it is made of convolutions it works on 192 px too.
"""

import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812  (torch's own custom)
from packages import Pixels
from torch import Tensor, nn

LATENTS: Final = 8
PART_PX: Final = 96


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


class Flow(nn.Module):
    """The velocity of latents (n, 8, h, w) at the times (n,), 0 noise and 1 picture; 2.7 million parameters."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.when = nn.Sequential(nn.Linear(64, 128), nn.SiLU(), nn.Linear(128, 128))
        self.inlet = nn.Conv2d(LATENTS, width, 3, padding=1)
        self.down1, self.shrink1 = _Residual(width, 128), nn.Conv2d(width, 2 * width, 4, 2, 1)
        self.down2, self.shrink2 = _Residual(2 * width, 128), nn.Conv2d(2 * width, 3 * width, 4, 2, 1)
        self.low1, self.low2 = _Residual(3 * width, 128), _Residual(3 * width, 128)
        self.look = nn.MultiheadAttention(3 * width, 4, batch_first=True)
        self.look_norm = _norm(3 * width)
        self.up2, self.join2 = _Residual(2 * width, 128), nn.Conv2d(5 * width, 2 * width, 1)
        self.up1, self.join1 = _Residual(width, 128), nn.Conv2d(3 * width, width, 1)
        self.outlet = nn.Sequential(_norm(width), nn.SiLU(), nn.Conv2d(width, LATENTS, 3, padding=1))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """The velocity, of x's shape."""
        waves = torch.exp(torch.linspace(0, 5, 32)) * t[:, None]
        when = self.when(torch.cat([waves.sin(), waves.cos()], 1))
        first = self.down1(self.inlet(x), when)
        second = self.down2(self.shrink1(first), when)
        low = self.low1(self.shrink2(second), when)
        n, c, h, w = low.shape
        seen = self.look_norm(low).flatten(2).transpose(1, 2)
        low = low + self.look(seen, seen, seen, need_weights=False)[0].transpose(1, 2).reshape(n, c, h, w)
        low = self.low2(low, when)
        second = self.up2(self.join2(torch.cat([F.interpolate(low, scale_factor=2.0), second], 1)), when)
        first = self.up1(self.join1(torch.cat([F.interpolate(second, scale_factor=2.0), first], 1)), when)
        return self.outlet(first)


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


def _fit(model: nn.Module, loss: Callable[[], Tensor], rate: float, seconds: float, say: str, path: Path) -> None:
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
            print(f"{say}: step {done}, {used:.0f} of {seconds:.0f} s, loss {value.item():.4f}", flush=True)
            torch.save({"model": model.state_dict(), "spent": used, "done": done}, path)
    model.load_state_dict(mean)
    torch.save({"model": model.state_dict(), "spent": seconds, "done": done}, path)


class Generator:
    """The trained pair of auto-encoder and flow."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.coder, self.flow = AutoEncoder(), Flow()
        self.scale = 1.0

    def train(self, pool: Pixels, coder_s: float, flow_s: float, seed: int) -> None:
        """Learn from pictures (n, 192, 192, 3) for so many seconds of processor time each; goes on where it stopped."""
        torch.manual_seed(seed)
        rng = np.random.default_rng(seed)
        self.folder.mkdir(parents=True, exist_ok=True)

        def recover() -> Tensor:
            x = _parts(pool, 8, 64, rng)
            z = self.coder.encode(x)
            back = self.coder.decode(z + 0.03 * torch.randn_like(z)).float()
            fine = sum(F.l1_loss(back.diff(dim=d), x.diff(dim=d)) for d in (2, 3))
            return F.l1_loss(back, x) + fine + 1e-4 * z.float().square().mean()

        _fit(self.coder, recover, 2e-3, coder_s, "auto-encoder", self.folder / "coder.pt")
        self.coder.eval().requires_grad_(requires_grad=False)
        with torch.no_grad():
            self.scale = 1 / float(self.coder.encode(_parts(pool, 64, PART_PX, rng)).std())

        def follow() -> Tensor:
            with torch.no_grad():
                z = self.coder.encode(_parts(pool, 16, PART_PX, rng)).float() * self.scale
            noise, t = torch.randn_like(z), torch.sigmoid(torch.randn(len(z)))
            at = t[:, None, None, None]
            return F.mse_loss(self.flow(noise + at * (z - noise), t).float(), z - noise)

        _fit(self.flow, follow, 1.5e-3, flow_s, "flow", self.folder / "flow.pt")
        self.flow.eval().requires_grad_(requires_grad=False)
        torch.save({"scale": self.scale}, self.folder / "scale.pt")

    def _tensor(self, pictures: Pixels) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1

    def _pixels(self, latents: Tensor) -> Pixels:
        x = self.coder.decode(latents / self.scale).float().clamp(-1, 1)
        return ((x + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()

    @torch.no_grad()
    def reconstruct(self, pictures: Pixels) -> Pixels:
        """Through the auto-encoder and back, (n, h, w, 3)."""
        return self._pixels(self.coder.encode(self._tensor(pictures)) * self.scale)

    @torch.no_grad()
    def restyle(self, pictures: Pixels, strength: float, steps: int, seed: int) -> Pixels:
        """Noise is mixed into the latents up to `strength` (0..1) and taken out again by the flow."""
        z = self.coder.encode(self._tensor(pictures)) * self.scale
        noise = torch.randn(z.shape, generator=torch.Generator().manual_seed(seed))
        return self._pixels(self._run(noise + (1 - strength) * (z - noise), 1 - strength, steps))

    @torch.no_grad()
    def invent(self, count: int, side: int, steps: int, seed: int) -> Pixels:
        """Pictures from noise alone, (count, side, side, 3)."""
        noise = torch.randn((count, LATENTS, side // 4, side // 4), generator=torch.Generator().manual_seed(seed))
        return self._pixels(self._run(noise, 0.0, steps))

    def _run(self, x: Tensor, start: float, steps: int) -> Tensor:
        times: npt.NDArray[np.float64] = np.linspace(start, 1, max(2, steps) + 1)
        for now, then in pairwise(times.tolist()):
            at = torch.full((len(x),), float(now))
            slope = self.flow(x, at).float()
            guess = x + (then - now) * slope
            if then < 1:
                slope = (slope + self.flow(guess, torch.full((len(x),), float(then))).float()) / 2
            x = x + (then - now) * slope
        return x
