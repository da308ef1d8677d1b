"""A classifier with three hidden layers on one state per item, as HALP's released code trains it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from .probe import Fitting, _check, _held_out, _scaling, _Weights

WIDTHS = (512, 256, 128)
DROPOUT = 0.3
RELEASED = Fitting(epochs=50, batch=32)


@dataclass(frozen=True, eq=False)
class Deep(_Weights):
    """σ(W₄ · h₃ + b₄), h_i = relu(W_i · h_{i−1} + b_i), h₀ = (x − mean)/scale.

    mean, scale: (feature,). weight_i: (width, fed). A batch normalisation that followed a ReLU in training is folded
    into the next layer.
    """

    dimensions: ClassVar[Mapping[str, str]] = {
        "mean": "feature", "scale": "feature", "weight_1": "first feature", "bias_1": "first",
        "weight_2": "second first", "bias_2": "second", "weight_3": "third second", "bias_3": "third",
        "weight_4": "risk third", "bias_4": "risk",
    }  # fmt: skip

    mean: Tensor
    scale: Tensor
    weight_1: Tensor
    bias_1: Tensor
    weight_2: Tensor
    bias_2: Tensor
    weight_3: Tensor
    bias_3: Tensor
    weight_4: Tensor
    bias_4: Tensor

    @property
    def size(self) -> int:
        return self.mean.shape[0]

    def __call__(self, features: Float[Tensor, "*items feature"]) -> Float[Tensor, "*items"]:
        on = lambda name: getattr(self, name).to(features.device).float()
        hidden = (features.float() - on("mean")) / on("scale")
        for number in (1, 2, 3):
            hidden = (hidden @ on(f"weight_{number}").T + on(f"bias_{number}")).relu()
        return (hidden @ on("weight_4").T + on("bias_4"))[..., 0].sigmoid()


def network(features: int) -> nn.Sequential:
    """feature → 512 → 256 → 128 → 1, each hidden layer Linear, ReLU, BatchNorm, dropout 0.3; gives logits."""
    parts: list[nn.Module] = []
    for fed, width in pairwise((features, *WIDTHS)):
        parts += [nn.Linear(fed, width), nn.ReLU(), nn.BatchNorm1d(width), nn.Dropout(DROPOUT)]
    return nn.Sequential(*parts, nn.Linear(WIDTHS[-1], 1))


def folded(trained: nn.Sequential) -> list[Tensor]:
    """Weights and biases of the linear layers with each batch normalisation inside the layer behind it.

    γ·(a − m)/√(v + ε) + β in front of W·a + b is W·g·a + (b + W·(β − g·m)), g = γ/√(v + ε).
    """
    out: list[Tensor] = []
    gain, shift = torch.ones(()), torch.zeros(())
    for part in trained:
        if isinstance(part, nn.Linear):
            weight, bias = part.weight.detach(), part.bias.detach()
            out += [weight * gain, bias + weight @ shift.expand(weight.shape[1])]
        elif isinstance(part, nn.BatchNorm1d):
            assert part.running_var is not None
            assert part.running_mean is not None
            gain = part.weight.detach() / (part.running_var + part.eps).sqrt()
            shift = part.bias.detach() - gain * part.running_mean
    return out


def fit_deep(
    features: Float[Tensor, "item feature"], labels: Int[Tensor, " label"], groups: Sequence[object],
    fitting: Fitting = RELEASED, scaled: bool = True, held_out: bool = True,
) -> tuple[Deep, dict[str, float]]:  # fmt: skip
    """Binary cross-entropy, Adam, every item once per epoch.

    groups: whose item it is. held_out: the epoch is the last of those with the best AUROC on a fifth of the groups,
    which are not trained on; without it all items are, to the last epoch. scaled: features are centred and scaled.
    Returns the probe, and the epoch with its AUROC.

    Raises:
        ValueError: features and labels that do not match, labels of one class only, or a single group to hold out from.
    """
    from sklearn.metrics import roc_auc_score

    _check(features, labels)
    generator = torch.Generator().manual_seed(fitting.seed)
    kept = _held_out(groups, generator) if held_out else torch.zeros(len(labels), dtype=torch.bool)
    known, truth = features[~kept], labels[~kept].float()
    if len(truth.unique()) < 2 or (held_out and len(labels[kept].unique()) < 2):
        raise ValueError(f"{len(labels)} items are too few to train on and to hold some of each class out; use more.")
    mean, scale = _scaling(known) if scaled else (torch.zeros(features.shape[1]), torch.ones(features.shape[1]))
    known = (known - mean) / scale
    best: tuple[float, int, Deep | None] = (-1.0, 0, None)
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(fitting.seed)
        model = network(features.shape[1])
        optimiser = torch.optim.Adam(model.parameters(), lr=fitting.rate, weight_decay=fitting.decay)
        for epoch in range(fitting.epochs):
            model.train()
            for part in torch.randperm(len(truth)).split(fitting.batch):
                if len(part) < 2:  # a batch normalisation needs two
                    continue
                loss = nn.functional.binary_cross_entropy_with_logits(model(known[part])[:, 0], truth[part])
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
            if not held_out and epoch + 1 < fitting.epochs:
                continue
            now = Deep(mean, scale, *folded(model.eval()))
            found = float(roc_auc_score(labels[kept], now(features[kept]))) if held_out else 0.0
            if found >= best[0]:  # of equal ones the last: it has seen most
                best = found, epoch + 1, now
    assert best[2] is not None
    about = {"held_out_auroc": best[0], "held_out_items": int(kept.sum())} if held_out else {}
    return best[2], {**about, "epoch": best[1]}
