"""Contract tests over any registered method, a stranger's too.

Each check is a function that raises ``AssertionError`` with one sentence when the method breaks the contract.  The
network and the data are tiny; a check says whether a method is well-behaved, not whether it is good.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.work import check_log_probs
from dbn_core.context import FitContext, PredictContext, freeze, predict_split
from dbn_core.data.batch import Batch
from dbn_core.data.dataset import Dataset, Split
from dbn_core.errors import BenchError, SpecError
from dbn_core.method import Method, Part
from dbn_core.metrics.cost import measure_cost
from dbn_core.nets.resnet import Classifier
from dbn_core.nets.spec import NetworkSpec
from dbn_core.registry import canonical, parse_method
from dbn_core.seeds import generator
from dbn_core.train.recipe import Recipe

# As deep as the papers' CIFAR network, so that every default block name exists, and as narrow as can be.
_SPEC = NetworkSpec(name="resnet32", channels=4, width=1.0)
_RECIPE = Recipe(epochs=2, batch_size=16, lr=0.05, crop_pad=1)
_LARGEST_SIZE = 9


@dataclass
class Verdict:
    """One check of one method: ``problem`` is empty when it passed."""

    name: str
    problem: str = ""


@dataclass
class Subject:
    """A method under test with fitted parts at its smallest size and, where there is one, at the next."""

    method: Method
    sizes: list[int]
    data: Dataset
    members: list[Classifier]
    fitted: dict[int, dict[str, dict[str, torch.Tensor]]] = field(default_factory=dict)

    def shared(self, *axes: str) -> dict[str, Any]:
        """Arguments common to the contexts."""
        return {"data": self.data, "spec": _SPEC, "device": torch.device("cpu"), "axes": {"check": list(axes)}}

    def fit(self, part: Part, parts: dict[str, Any]) -> dict[str, torch.Tensor]:
        """Fit one part and return its state."""
        context = FitContext(
            **self.shared("fit", part.name),
            recipe=_RECIPE,
            student_epochs=2,
            members=[self.members[position] for position in part.members],
            parts={name: parts[name] for name in part.needs},
        )
        fitted = self.method.fit(part, context)
        assert isinstance(fitted, nn.Module | dict), f"fit('{part.name}') must return a module or a dict of tensors"
        state = fitted.state_dict() if isinstance(fitted, nn.Module) else fitted
        return {name: tensor.detach().clone() for name, tensor in state.items()}

    def fit_all(self, size: int) -> dict[str, dict[str, torch.Tensor]]:
        """Fit all parts of one size, once."""
        if size not in self.fitted:
            parts: dict[str, Any] = {}
            for part in self.method.parts(size):
                parts[part.name] = self.fit(part, parts)
            self.fitted[size] = parts
        return self.fitted[size]

    def predictor(self, size: int) -> nn.Module:
        """The predictor of one size."""
        context = PredictContext(
            **self.shared("predict"),
            members={position: self.members[position] for position in self.method.members(size)},
            parts=self.fit_all(size),
        )
        module = self.method.predictor(size, context)
        assert isinstance(module, nn.Module), "predictor() must return a torch.nn.Module"
        return freeze(module)

    def predict(self, size: int) -> torch.Tensor:
        """Terms [M, N, K] on the test split."""
        return check_log_probs(
            predict_split(self.predictor(size), self.data.test, torch.device("cpu")),
            len(self.data.test),
            self.data.num_classes,
            self.method.name,
        )


def check_is_described(subject: Subject) -> None:
    """has a docstring and a canonical spec that means itself."""
    assert subject.method.summary(), "give the class a docstring: its first line describes the method in `list`"
    again = parse_method(canonical(subject.method))
    assert again.config == subject.method.config, f"the spec '{canonical(subject.method)}' parses to other options"


def check_parts_are_ordered(subject: Subject) -> None:
    """lists parts after the parts they need, with unique names and members that exist."""
    for size in subject.sizes:
        seen: set[str] = set()
        for part in subject.method.parts(size):
            assert part.name not in seen, f"parts({size}) lists '{part.name}' twice"
            missing = set(part.needs) - seen
            assert not missing, f"parts({size}) lists '{part.name}' before '{', '.join(sorted(missing))}'"
            assert all(0 <= m < size for m in part.members), f"'{part.name}' reads members outside 0..{size - 1}"
            seen.add(part.name)
        assert all(0 <= m < size for m in subject.method.members(size)), f"members({size}) is outside 0..{size - 1}"


def check_predictions(subject: Subject) -> None:
    """returns normalised log-probabilities of the right shape."""
    for size in subject.sizes:
        subject.predict(size)


def check_examples_are_independent(subject: Subject) -> None:
    """predicts an example alike whatever else is in its batch."""
    predictor, images = subject.predictor(subject.sizes[0]), subject.data.test.images[:8].float() / 255
    with torch.no_grad():
        together, alone = predictor(images), torch.cat([predictor(x[None]) for x in images], -2)
    gap = (together - alone).abs().max()
    assert gap < 1e-3, f"log-probabilities change by {gap:.3g} with the rest of the batch: use evaluation statistics"


def check_same_seed_same_bits(subject: Subject) -> None:
    """gives the same bits for the same seed."""
    size = subject.sizes[0]
    for part in subject.method.parts(size):
        first, again = subject.fit_all(size)[part.name], subject.fit(part, subject.fit_all(size))
        same = first.keys() == again.keys() and all(torch.equal(first[k], again[k]) for k in first)
        assert same, f"fitting '{part.name}' twice gives different weights: draw from context.generator(...)"


def check_global_random_state(subject: Subject) -> None:
    """does not seed the global random state."""
    before = torch.initial_seed()
    size = subject.sizes[0]
    for part in list(subject.method.parts(size))[:1]:
        subject.fit(part, subject.fit_all(size))
    assert torch.initial_seed() == before, "fit() calls torch.manual_seed: use context.generator(...) instead"


def check_members_stay_frozen(subject: Subject) -> None:
    """leaves the shared members as they are."""
    before = [{k: v.clone() for k, v in member.state_dict().items()} for member in subject.members]
    subject.fitted.clear()
    subject.predict(subject.sizes[0])
    for old, member in zip(before, subject.members, strict=True):
        changed = [k for k, v in member.state_dict().items() if not torch.equal(old[k], v)]
        assert not changed, f"fitting changed '{changed[0]}' of a member that other methods share"


def check_nested_terms(subject: Subject) -> None:
    """when nested, returns the terms of a small size as the first terms of a larger one."""
    if not subject.method.nested or len(subject.sizes) < 2:
        return
    small, large = subject.sizes[:2]
    a, b = subject.predict(small), subject.predict(large)
    assert len(a) == subject.method.terms(small), (
        f"terms({small}) says {subject.method.terms(small)}, returned {len(a)}"
    )
    assert torch.equal(a, b[: len(a)]), f"the terms at size {small} are not the first terms at size {large}"


def check_cost(subject: Subject) -> None:
    """can be counted: fvcore and torch agree on its FLOPs."""
    example = torch.zeros(1, subject.data.channels, *subject.data.image_size)
    try:
        measure_cost(subject.predictor(subject.sizes[0]), example)
    except BenchError as error:
        raise AssertionError(str(error)) from error


CHECKS: tuple[Callable[[Subject], None], ...] = (
    check_is_described,
    check_parts_are_ordered,
    check_predictions,
    check_examples_are_independent,
    check_same_seed_same_bits,
    check_global_random_state,
    check_members_stay_frozen,
    check_nested_terms,
    check_cost,
)


def make_subject(method: Method) -> Subject:
    """Tiny data, untrained members, and the two smallest sizes that the method accepts.

    Raises:
        SpecError: the method accepts no size up to 9.
    """
    sizes = []
    for size in range(1, _LARGEST_SIZE + 1):
        try:
            method.check_size(size)
        except SpecError:
            continue
        sizes.append(size)
    if not sizes:
        raise SpecError(f"Method '{method.name}' accepts no size from 1 to {_LARGEST_SIZE}: look at its check_size().")
    data = _tiny_data()
    members = []
    for index in range(_LARGEST_SIZE):
        context = FitContext(data=data, spec=_SPEC, device=torch.device("cpu"), axes={"check": index}, recipe=_RECIPE)
        network = context.new_network()
        if index < 3:  # enough to differ from an initialisation; the rest only fills the pool
            context.train(network, partial(_cross_entropy, network), _RECIPE)
        members.append(freeze(network))
    return Subject(method, sizes[:2], data, members)


def _cross_entropy(network: nn.Module, batch: Batch) -> torch.Tensor:
    return F.cross_entropy(network(batch.images), batch.labels)


def _tiny_data() -> Dataset:
    g = generator(purpose="check-data")

    def split(count: int) -> Split:
        labels = torch.arange(count) % 4
        images = torch.randint(0, 120, (count, 1, 8, 8), generator=g)
        for k in range(4):  # a bright quadrant tells the class
            images[labels == k, :, (k // 2) * 4 : (k // 2) * 4 + 4, (k % 2) * 4 : (k % 2) * 4 + 4] += 100
        return Split(images.to(torch.uint8), labels)

    return Dataset.build(
        name="check",
        title="Contract check",
        train=split(48),
        validation=split(16),
        test=split(24),
        classes=("a", "b", "c", "d"),
        mean=(0.4,),
        std=(0.2,),
        flip=False,
    )


def check_method(method: Method) -> Iterator[Verdict]:
    """Run every check; a crash inside a method is a problem like any other."""
    subject = make_subject(method)
    for check in CHECKS:
        sentence = (check.__doc__ or check.__name__).rstrip(".")
        try:
            check(subject)
        except AssertionError as error:
            yield Verdict(sentence, str(error))
        except Exception as error:
            yield Verdict(sentence, f"{type(error).__name__}: {error}")
        else:
            yield Verdict(sentence)
