"""Methods that each break one promise of the contract, and ordinary ones that keep all of them."""

from __future__ import annotations

import itertools
import random
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from dbn_core import Config, Cost, Method, Mixture, Part, SpecError


class Good(Method):
    """A member, and a small classifier of pixels that one part trains."""

    reference = "Author, 2000, arXiv 0000.00000"

    def parts(self, size: int) -> list[Part]:
        return [Part("small", members=(0,))]

    def members(self, size: int) -> tuple[int, ...]:
        return (0,)

    def build(self, context: Any) -> nn.Module:
        return context.initialise(nn.Sequential(nn.Flatten(), nn.Linear(64, context.classes)))

    def step(self, small: nn.Module, context: Any) -> Callable[[Any], torch.Tensor]:
        return lambda batch: F.cross_entropy(small(batch.images), batch.labels)

    def fit(self, part: Part, context: Any) -> Any:
        small = self.build(context)
        context.train(small, self.step(small, context))
        return small

    def predictor(self, size: int, context: Any) -> nn.Module:
        return Mixture([context.members[0], context.load(self.build(context), "small")])


class Network(nn.Module):
    """A predictor from a function of images and a network."""

    def __init__(self, network: nn.Module, forward: Callable[..., Any]) -> None:
        super().__init__()
        self.network, self.function, self.calls = network, forward, 0

    def forward(self, images: torch.Tensor) -> Any:
        self.calls += 1
        return self.function(self, images)


def predicting(forward: Callable[..., Any]) -> dict[str, Any]:
    """Overrides of Good: its predictor is ``forward(predictor, images)``."""
    return {"predictor": lambda self, size, context: Network(context.members[0], forward)}


def log_probs(predictor: Any, images: torch.Tensor) -> torch.Tensor:
    return predictor.network(images).log_softmax(-1)


def fitting(fit: Callable[[Any], Any]) -> dict[str, Any]:
    """Overrides of Good: its part is whatever ``fit(context)`` returns, and unused."""
    member = {"predictor": lambda self, size, context: Mixture([context.members[0]])}
    return {"fit": lambda self, part, context: fit(context), **member}


def listing(*parts: Any) -> dict[str, Any]:
    return {"parts": lambda self, size: list(parts)}


def raises(error: BaseException) -> Callable[..., Any]:
    def fail(*arguments: Any) -> Any:
        raise error

    return fail


def spoil(context: Any) -> dict[str, torch.Tensor]:
    with torch.no_grad():
        next(context.members[0].parameters()).add_(1)
    return {"x": torch.ones(1)}


def doing(action: Callable[[], object]) -> Callable[[Any], Any]:
    def fit(context: Any) -> dict[str, torch.Tensor]:
        action()
        return {"x": torch.ones(1)}

    return fit


def twice(context: Any) -> nn.Module:
    both = nn.ModuleList(context.initialise(nn.Sequential(nn.Flatten(), nn.Linear(64, 4)), p) for p in "ab")
    for network in both:
        context.train(network, lambda batch, network=network: F.cross_entropy(network(batch.images), batch.labels))
    return both


def own_generator(self: Any, small: nn.Module, context: Any) -> Callable[[Any], torch.Tensor]:
    generator = context.generator("noise")  # not handed to context.train(): a resumed run draws other numbers
    return lambda batch: F.cross_entropy(
        small(batch.images + torch.randn(batch.images.shape, generator=generator)), batch.labels
    )


def entropy() -> torch.Generator:
    """A generator that nobody seeded."""
    generator = torch.Generator()
    generator.seed()
    return generator


def at_random() -> nn.Module:
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    nn.init.normal_(network[1].weight, generator=entropy())
    return network


def written_into(self: Any, small: nn.Module, context: Any) -> Callable[[Any], torch.Tensor]:
    def step(batch: Any) -> torch.Tensor:
        logits = torch.zeros(len(batch), context.classes)
        chosen = torch.arange(len(batch))
        logits[chosen] = small(batch.images)  # autocast gives bf16, and no index assignment takes another type
        return F.cross_entropy(logits, batch.labels)

    return step


WIDTHS = itertools.count(8)


def of_another_width(self: Any, context: Any) -> nn.Module:
    width = next(WIDTHS)  # as from a file, or a clock
    return context.initialise(nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.Linear(width, context.classes)))


class Halves(nn.Module):
    """A network, its halves by other names, its last weight in another layer too, and dropout."""

    def __init__(self, context: Any) -> None:
        super().__init__()
        self.network = context.new_network()
        self.features, self.head = self.network.split(f"block{len(self.network.blocks) - 1}")
        last = self.network.head.linear
        self.other = nn.Linear(last.in_features, context.classes)
        self.other.weight = last.weight

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        h = F.dropout(self.features(images), 0.2, self.training)
        return self.head(h) + self.other(h.mean((2, 3)))


def trains_strange_numbers(context: Any) -> dict[str, torch.Tensor]:
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    network.register_buffer("phases", torch.ones(2, dtype=torch.complex128))
    context.train(network, lambda batch: F.cross_entropy(network(batch.images), batch.labels))
    return {"weight": network[1].weight}


def online(self: Any, small: nn.Module, context: Any) -> Callable[[Any], torch.Tensor]:
    return lambda batch: F.mse_loss(small(batch.images), context.teach_images(batch.images).mean(0))


def remember(self: Any, part: Part, context: Any) -> dict[str, torch.Tensor]:
    self.index = torch.ones(1)
    return {"x": torch.ones(1)}


def growing(self: Any, size: int) -> list[Part]:
    growing.calls += 1  # type: ignore[attr-defined]
    return [Part(f"small-{growing.calls}", members=(0,))]  # type: ignore[attr-defined]


growing.calls = 0  # type: ignore[attr-defined]


class SetOfNames(Config):
    names: frozenset[str] = frozenset({"a"})


def cached(predictor: Any, images: torch.Tensor) -> torch.Tensor:
    if not (hasattr(predictor, "seen") and torch.equal(predictor.seen, images)):
        predictor.seen, predictor.answer = images.clone(), log_probs(predictor, images)
    return predictor.answer


def batchwise(predictor: Any, images: torch.Tensor) -> torch.Tensor:
    x = predictor.network(images)
    return (x - x.mean(0)).log_softmax(-1)


def by_numpy(predictor: Any, images: torch.Tensor) -> torch.Tensor:
    logits = np.tanh(predictor.network(images).numpy())
    return torch.from_numpy(logits).log_softmax(-1)


# Each breaks one point of the contract: what it overrides, the point that fails, and words of its sentence.
BROKEN: dict[str, tuple[dict[str, Any], str, str]] = {
    "no docstring": ({"__doc__": ""}, "has a docstring", "give the class a docstring"),
    "no reference": ({"reference": ""}, "has a docstring", "set `reference`"),
    "odd version": ({"version": "two"}, "has a docstring", "whole number"),
    "options are no JSON": ({"Config": SetOfNames}, "has a docstring", "options cannot be written as JSON"),
    "wrong error for a size": (
        {"check_size": raises(ValueError("no"))},
        "accepts or refuses",
        "raise dbn_core.SpecError",
    ),
    "no size": ({"check_size": raises(SpecError("no"))}, "accepts or refuses", "accepts no size"),
    "size nought": ({"check_size": lambda self, size: None}, "accepts or refuses", "refuse sizes below 1"),
    "parts() is a dice": ({"parts": growing}, "well-formed parts", "depend on the size and the options"),
    "no part": (listing("small"), "well-formed parts", "list dbn_core.Part objects"),
    "odd part name": (listing(Part("a/b")), "well-formed parts", "use letters, digits"),
    "two parts of a name": (listing(Part("a"), Part("a")), "well-formed parts", "twice"),
    "parts out of order": (listing(Part("a", needs=("b",)), Part("b")), "well-formed parts", "before 'b'"),
    "member out of range": (listing(Part("a", members=(99,))), "well-formed parts", "positions in 0..0"),
    "settings are no JSON": (listing(Part("a", settings={"x": {1}})), "well-formed parts", "settings of part 'a'"),
    "members is a list": ({"members": lambda self, size: [0]}, "members that its predictor", "give a tuple"),
    "fit() is missing": ({"fit": Method.fit}, "finite tensors", "does not define fit()"),
    "fit() returns None": (fitting(lambda context: None), "finite tensors", "return a module or a mapping"),
    "fit() returns nothing": (fitting(lambda context: {}), "finite tensors", "returns no tensors"),
    "fit() returns NaN": (fitting(lambda context: {"x": torch.tensor(np.nan)}), "finite tensors", "NaN or infinite"),
    "an option in the recipe": (
        fitting(lambda context: context.student_recipe(width=2)),
        "finite tensors",
        "takes lr_scale and the fields of a recipe, not 'width'",
    ),
    "fit() exits": (fitting(doing(lambda: sys.exit(3))), "finite tensors", "SystemExit: 3"),
    "spoils a member": (fitting(spoil), "leaves the members", "of a member: work on a copy"),
    "remembers": (fitting(lambda context: None) | {"fit": remember}, "keeps nothing", "sets self.index"),
    "unseeded draws": (
        fitting(lambda context: {"x": torch.randn(3, generator=entropy())}),
        "same bits from",
        "different weights",
    ),
    "a training without checkpoints": (
        fitting(trains_strange_numbers),
        "killed",
        "'phases' is a tensor of type complex128, which cannot be stored",
    ),
    "never twice the same module": (
        {"build": of_another_width},
        "killed",
        "same parameters and buffers, of the same shapes",
    ),
    "one precision": (
        {"step": written_into},
        "fp32 and bf16",
        "does not fit with precision = bf16 and teachers = online: RuntimeError",
    ),
    "one purpose twice": (fitting(twice), "killed", "a purpose of its own"),
    "draws that are not resumed": ({"step": own_generator}, "killed", "step_generator"),
    "online after all": (
        listing(Part("small", members=(0,), teacher_mixup=0)) | {"step": online},
        "stored logits",
        "call context.teach(batch)",
    ),
    "mixup it did not declare": (
        listing(Part("small", members=(0,), teacher_mixup=0.4)),
        "stored logits",
        "declare the mixup",
    ),
    "seeds torch": (fitting(doing(lambda: torch.manual_seed(7))), "global settings", "changes the global seed"),
    "sets threads": (fitting(doing(lambda: torch.set_num_threads(2))), "global settings", "the number of threads"),
    "no module": ({"predictor": lambda self, size, context: 3}, "normalised", "return a torch.nn.Module"),
    "undeclared part": (
        {"predictor": lambda self, size, context: context.load(self.build(context), "other")},
        "normalised",
        "not available",
    ),
    "no log-probabilities": (predicting(lambda self, x: self.network(x)), "normalised", "end the predictor with"),
    "odd shape": (predicting(lambda self, x: log_probs(self, x)[:, :2]), "normalised", "returned shape"),
    "NaN": (predicting(lambda self, x: log_probs(self, x) * np.nan), "normalised", "contain NaN"),
    "in place": (
        predicting(lambda self, x: log_probs(self, x.mul_(0.5))),
        "predicts the same",
        "input images in place",
    ),
    "noise": (
        predicting(lambda self, x: (self.network(x) + torch.randn(4, generator=entropy())).log_softmax(-1)),
        "predicts the same",
        "keep no state between calls",
    ),
    "remembers calls": (
        predicting(lambda self, x: (self.network(x) / self.calls).log_softmax(-1)),
        "predicts the same",
        "keep no state between calls",
    ),
    "built at random": (
        {"predictor": lambda self, size, context: Mixture([at_random()])},
        "predicts the same",
        "built again",
    ),
    "batch statistics": (predicting(batchwise), "in every batch", "evaluation statistics"),
    "terms": ({"nested": True}, "when nested", "terms(1) is 1, but the predictor returns 2"),
    "terms out of order": (
        {
            "nested": True,
            "terms": lambda self, size: size,
            "parts": lambda self, size: [],
            "members": lambda self, size: tuple(range(size)),
            "predictor": lambda self, size, context: Mixture(context.members[m] for m in reversed(range(size))),
        },
        "when nested",
        "not the first terms",
    ),
    "keeps answers": (predicting(cached), "has a cost", "keep no results between calls"),
    "leaves torch": (predicting(by_numpy), "has a cost", "state the whole cost in Method.cost()"),
    "states too little": (
        {**predicting(by_numpy), "cost": lambda self, size, context, counted: Cost(counted.params, 3)},
        "has a cost",
        "return `counted` plus",
    ),
    "states no cost": ({"cost": lambda self, size, context, counted: 12}, "has a cost", "return a Cost, or None"),
}


def with_numpy(self: Any, small: nn.Module, context: Any) -> Callable[[Any], torch.Tensor]:
    return lambda batch: F.cross_entropy(
        small(batch.images + random.random() * float(np.random.normal())),  # noqa: NPY002 - on purpose
        batch.labels,
    )


# What authors write without a thought of the contract, and what the harness makes good.
ORDINARY: dict[str, dict[str, Any]] = {
    "plain": {},
    "tied weights and dropout": {"build": lambda self, context: Halves(context)},
    "weights by torch": {"build": lambda self, context: nn.Sequential(nn.Flatten(), nn.Linear(64, context.classes))},
    "numpy and random": {"step": with_numpy},
    "draws of fit": fitting(lambda context: {"x": torch.randn(3)}),
    "one tensor by two names": fitting(lambda context: dict.fromkeys("xy", torch.ones(3))),
    "noise": predicting(lambda self, x: (self.network(x) + torch.randn(4)).log_softmax(-1)),
    "dropout": predicting(lambda self, x: F.dropout(self.network(x), 0.5).log_softmax(-1)),
    "built at random": {
        "predictor": lambda self, size, context: Mixture([nn.Sequential(nn.Flatten(), nn.Linear(64, 4))])
    },
    "a stated cost of inference outside torch": {
        **predicting(by_numpy),
        "cost": lambda self, size, context, counted: counted + Cost(0, 4),
    },
}
