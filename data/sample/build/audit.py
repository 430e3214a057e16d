"""What must not tell the classes apart, and whether it does: `python data/sample/build/audit.py [FOLDER]`.

Fitted on train, tried on test: the cut of each feature of camera.FEATURES alone and of a few of the file, all of them
together, and a small network on pictures of 32 px, which sees what they show but little of how they were made.
"""

import argparse
import collections
import io
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
from camera import FEATURES, features
from PIL import Image


def _read(path: Path) -> tuple[list[bytes], npt.NDArray[np.int64], list[dict[str, Any]]]:
    rows = pq.read_table(path).to_pylist()
    return [row["image"]["bytes"] for row in rows], np.array([row["label"] for row in rows]), rows


def alone(train: Any, y: Any, test: Any, truth: Any) -> float:
    """Accuracy on test of the best cut through one feature, (n,), as train has it: at most two cuts."""
    from sklearn.tree import DecisionTreeClassifier

    tree = DecisionTreeClassifier(max_leaf_nodes=3, min_samples_leaf=20, random_state=0).fit(train[:, None], y)
    return float((tree.predict(test[:, None]) == truth).mean())


def small_network(bodies: list[bytes], y: Any, others: list[bytes], truth: Any) -> float:
    """Accuracy on test of a network of three convolutions on pictures of 32 px."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    torch.set_num_threads(1)

    def tensor(files: list[bytes]) -> Any:
        small = [Image.open(io.BytesIO(body)).convert("RGB").resize((32, 32), Image.Resampling.BOX) for body in files]
        return torch.from_numpy(np.stack([np.asarray(one) for one in small])).permute(0, 3, 1, 2).float() / 127.5 - 1

    layers: list[nn.Module] = []
    for before, after in ((3, 32), (32, 64), (64, 96)):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(2)]
    model = nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.3), nn.Linear(96 * 16, 1))
    x, want = tensor(bodies), torch.from_numpy(y).float()[:, None]
    optimiser = torch.optim.AdamW(model.parameters(), 1e-3)
    for _ in range(12):
        for part in torch.randperm(len(x)).split(64):
            shown = x[part].flip(3) if torch.rand(()) < 0.5 else x[part]
            loss = nn.functional.binary_cross_entropy_with_logits(model(shown), want[part])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    model.eval()
    with torch.no_grad():
        said = model(tensor(others))[:, 0].numpy() > 0
    return float((said == truth).mean())


def main() -> None:
    """Print the counts and the table."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=Path(__file__).parents[1])
    folder = parser.parse_args().folder
    sources: dict[str, set[str]] = {}
    for path in sorted(folder.glob("*.parquet")):
        _, _, rows = _read(path)
        sources[path.stem] = {row["source"] for row in rows} - {""}
        print(f"{path.name}: {len(rows)} images, {len(sources[path.stem])} photographs, {path.stat().st_size:,} bytes")
        for key in ("label", "generator", "package", "license"):
            print(f"  {key}: {dict(collections.Counter(row[key] for row in rows).most_common())}")
    for one, other in combinations([name for name in sources if name != "unseen_generator"], 2):
        print(f"photographs that {one} and {other} share: {len(sources[one] & sources[other])}")
    bodies, y, _ = _read(folder / "train.parquet")
    others, truth, _ = _read(folder / "test.parquet")
    train, test = (np.array([features(body) for body in part]) for part in (bodies, others))
    for place, name in enumerate(FEATURES):
        print(f"{name:32} {alone(train[:, place], y, test[:, place], truth):.3f}")
    scale = StandardScaler().fit(train)
    for name, model in (
        ("all, logistic", LogisticRegression(max_iter=2000)),
        ("all, boosted trees", HistGradientBoostingClassifier(max_depth=4, random_state=0)),
    ):
        said = model.fit(scale.transform(train), y).predict(scale.transform(test))
        print(f"{name:32} {(said == truth).mean():.3f}")
    print(f"{'small network, 32 px':32} {small_network(bodies, y, others, truth):.3f}")


if __name__ == "__main__":
    main()
