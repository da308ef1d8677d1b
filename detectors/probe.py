"""Small classifiers that map a detector's features to the probability that a token or an answer is hallucinated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, ClassVar, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

HIDDEN = 128  # of the paper
HELD_OUT = 0.2  # share of the groups that the number of epochs is chosen on


class Probe(Protocol):
    """features (…, feature) -> probability (…); and its weights by name."""

    @property
    def size(self) -> int: ...

    def tensors(self) -> dict[str, Tensor]: ...

    def __call__(self, features: Float[Tensor, "*items feature"]) -> Float[Tensor, "*items"]: ...


class _Weights:
    """A probe whose fields are its tensors. Two of one kind with the same tensors are equal."""

    def tensors(self) -> dict[str, Tensor]:
        return {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Weights) or type(other) is not type(self):
            return False
        theirs = other.tensors()
        return all(torch.equal(value.cpu(), theirs[name].cpu()) for name, value in self.tensors().items())

    def __hash__(self) -> int:
        return hash((type(self), *[tuple(value.shape) for value in self.tensors().values()]))


@dataclass(frozen=True, eq=False)
class Linear(_Weights):
    """Logistic regression: σ(w · x + b). weight: (feature,). bias: ()."""

    dimensions: ClassVar[Mapping[str, str]] = {"weight": "feature", "bias": ""}

    weight: Tensor
    bias: Tensor

    @property
    def size(self) -> int:
        return self.weight.shape[0]

    def __call__(self, features: Float[Tensor, "*items feature"]) -> Float[Tensor, "*items"]:
        return torch.sigmoid(features.float() @ self.weight.to(features.device) + self.bias.to(features.device))


@dataclass(frozen=True, eq=False)
class MLP(_Weights):
    """softmax(W₂ · relu(W₁ · (x − mean)/scale + b₁) + b₂), summed over the classes that mean hallucinated.

    mean, scale: (feature,). weight_1: (hidden, feature). weight_2: (class, hidden). The upper half of the classes is
    hallucinated.
    """

    dimensions: ClassVar[Mapping[str, str]] = {
        "mean": "feature", "scale": "feature", "weight_1": "hidden feature", "bias_1": "hidden",
        "weight_2": "class hidden", "bias_2": "class",
    }  # fmt: skip

    mean: Tensor
    scale: Tensor
    weight_1: Tensor
    bias_1: Tensor
    weight_2: Tensor
    bias_2: Tensor

    @property
    def size(self) -> int:
        return self.weight_1.shape[1]

    @cached_property
    def folded(self) -> tuple[Float[Tensor, "hidden feature"], Float[Tensor, " hidden"]]:
        """(W, b) of the first layer with the scaling inside it: W₁ · (x − mean)/scale + b₁ = W · x + b."""
        weight = self.weight_1.float() / self.scale.float()
        return weight, self.bias_1.float() - weight @ self.mean.float()

    def classes(self, before: Float[Tensor, "*items hidden"]) -> Float[Tensor, "*items class"]:
        """Class probabilities from the first layer's output before the ReLU."""
        weight, bias = self.weight_2.float().to(before.device), self.bias_2.float().to(before.device)
        return (before.relu() @ weight.T + bias).softmax(-1)

    def hallucinated(self, before: Float[Tensor, "*items hidden"]) -> Float[Tensor, "*items"]:
        found = self.classes(before)
        return found[..., found.shape[-1] // 2 :].sum(-1)

    def __call__(self, features: Float[Tensor, "*items feature"]) -> Float[Tensor, "*items"]:
        weight, bias = (part.to(features.device) for part in self.folded)
        return self.hallucinated(features.float() @ weight.T + bias)


def fit_linear(
    features: Float[Tensor, "item feature"], labels: Int[Tensor, " label"], strength: float = 1.0,
    counts: Float[Tensor, " item"] | None = None,
) -> Linear:  # fmt: skip
    """scikit-learn's LogisticRegression on scaled features, the scaling folded into the weights.

    strength: C, the inverse of the L2 penalty. counts: how often each item counts. Lookback Lens's authors do not
    scale; ratios of a model whose heads hardly attend to the image are so small that an unscaled penalty would silence
    them.

    Raises:
        ValueError: features and labels that do not match, or labels of one class only.
    """
    from sklearn.linear_model import LogisticRegression

    _check(features, labels)
    mean, scale = _scaling(features)
    fitted = LogisticRegression(C=strength, max_iter=1000)
    often = None if counts is None else counts.double().numpy()
    fitted.fit(((features - mean) / scale).double().numpy(), labels.numpy(), sample_weight=often)
    weight = torch.tensor(fitted.coef_[0]) / scale.double()
    bias = float(fitted.intercept_[0]) - weight @ mean.double()
    return Linear(weight.float(), bias.float())


@dataclass(frozen=True)
class Fitting:
    """How a network is fitted. epochs: at most. batch: items per step. rate, decay: of Adam. seed: of all draws.

    hidden: units of a network with one hidden layer.
    """

    epochs: int = 30
    batch: int = 256
    rate: float = 1e-3
    decay: float = 0.0
    seed: int = 0
    hidden: int = HIDDEN


def fit_mlp(
    features: Float[Tensor, "item feature"], labels: Int[Tensor, " label"], groups: Sequence[Any], classes: int = 2,
    counts: Float[Tensor, " item"] | None = None, fitting: Fitting = Fitting(),
) -> tuple[MLP, dict[str, float]]:  # fmt: skip
    """A layer of ReLUs (`fitting.hidden`), softmax cross-entropy, Adam, every class drawn equally often.

    labels: 0 to classes − 1, the upper half hallucinated. groups: whose item it is; the epoch is the last of
    those with the best AUROC on a fifth of the groups, which are not trained on. Returns the probe and that epoch with
    its AUROC. counts: how often each item counts among those of its class, and in that AUROC.

    Raises:
        ValueError: features and labels that do not match, a class without items, or a single group.
    """
    from sklearn.metrics import roc_auc_score

    _check(features, labels, classes)
    generator = torch.Generator().manual_seed(fitting.seed)
    kept = _held_out(groups, generator)
    known, truth = features[~kept], labels[~kept]
    if len(truth.unique()) < classes or len(set((labels[kept] >= classes // 2).tolist())) < 2:
        raise ValueError(f"{len(labels)} items are too few to train on and to hold some of each class out; use more.")
    mean, scale = _scaling(known)
    known, checked = (known - mean) / scale, (features[kept] - mean) / scale
    layers = _layers(features.shape[1], fitting.hidden, classes, generator)
    optimiser = torch.optim.Adam(layers, lr=fitting.rate, weight_decay=fitting.decay)
    share = sample_weights(truth, None if counts is None else counts[~kept])
    often = None if counts is None else counts[kept].numpy()
    best: tuple[float, int, list[Tensor]] = (-1.0, 0, [])
    for epoch in range(fitting.epochs):
        drawn = torch.multinomial(share, len(truth), replacement=True, generator=generator)
        for part in drawn.split(fitting.batch):
            w1, b1, w2, b2 = layers
            loss = torch.nn.functional.cross_entropy((known[part] @ w1.T + b1).relu() @ w2.T + b2, truth[part])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        now = [layer.detach().clone() for layer in layers]
        risk = MLP(torch.zeros(1), torch.ones(1), *now).hallucinated(checked @ now[0].T + now[1])
        found = float(roc_auc_score(labels[kept] >= classes // 2, risk, sample_weight=often))
        if found >= best[0]:  # of equal ones the last: it has seen most
            best = found, epoch + 1, now
    return MLP(mean, scale, *best[2]), {"held_out_auroc": best[0], "epoch": best[1], "held_out_items": int(kept.sum())}


def sample_weights(
    labels: Int[Tensor, " item"], counts: Float[Tensor, " item"] | None = None
) -> Float[Tensor, " item"]:  # fmt: skip
    """1 / number of items of the same class: every class is drawn equally often. counts: how often each item counts.

    >>> sample_weights(torch.tensor([0, 0, 0, 1])).tolist()
    [0.3333333432674408, 0.3333333432674408, 0.3333333432674408, 1.0]
    """
    often = torch.ones(len(labels)) if counts is None else counts.float()
    return often / torch.bincount(labels, often)[labels]


def _layers(size: int, hidden: int, classes: int, generator: torch.Generator) -> list[Tensor]:
    """Weights and biases as torch draws them for linear layers, from a generator of their own."""
    out = []
    for width, fed in ((hidden, size), (classes, hidden)):
        for shape in ((width, fed), (width,)):
            drawn = (torch.rand(shape, generator=generator) * 2 - 1) / fed**0.5
            out.append(drawn.requires_grad_())
    return out


def _held_out(groups: Sequence[Any], generator: torch.Generator) -> Tensor:
    """(item,) bool: the items of a fifth of the groups."""
    names = list(dict.fromkeys(groups))
    if len(names) < 2:
        raise ValueError(f"{len(names)} group of items: one is held out to choose the epoch; give two or more.")
    order = torch.randperm(len(names), generator=generator)[: max(1, round(HELD_OUT * len(names)))]
    chosen = {names[int(place)] for place in order}
    return torch.tensor([group in chosen for group in groups])


def _scaling(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of every feature; a feature that never varies is left as it is."""
    scale = features.std(0)
    return features.mean(0), torch.where(scale > 1e-8, scale, 1.0)


def _check(features: Tensor, labels: Tensor, classes: int = 2) -> None:
    if features.dim() != 2 or labels.shape != features.shape[:1]:
        raise ValueError(
            f"features are (item, feature) and labels (item,); found {tuple(features.shape)} and {tuple(labels.shape)}."
        )
    present = labels.unique().tolist()
    if len(present) < 2 or not set(present) <= set(range(classes)):
        raise ValueError(f"a probe needs items of all classes 0 to {classes - 1}; found {present}.")
