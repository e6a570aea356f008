"""Contract tests over any registered method, built in or of a plugin.

Each check is a function whose docstring ends the sentence "a method ...".  It raises :class:`ContractError` with one
sentence for the method's author, or returns a note.  Network and data are tiny: the checks test whether a method
behaves, not whether it is good.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import nn

from benchmarks.contract.promises import CheckResult, ContractError, require, run_checks
from benchmarks.contract.subject import LARGEST_SIZE, Subject, make_subject
from benchmarks.contract.training import (
    check_fit,
    check_keeps_nothing,
    check_members_stay_frozen,
    check_precisions_and_teachers,
    check_resumes,
    check_same_seed_same_bits,
)
from dbn_core.data.augment import to_float
from dbn_core.errors import BenchError, SpecError
from dbn_core.measure.cost import count_in_torch, predictor_cost
from dbn_core.methods.method import Method, Part
from dbn_core.methods.registry import canonical, parse_method
from dbn_core.metrics.scores import FLOOR
from dbn_core.rng import canonical_json, generator, seeded

_CPU = torch.device("cpu")
_PART_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


def check_is_described(subject: Subject) -> None:
    """has a docstring, a reference, and a spec that parses to the same method."""
    method = subject.method
    require(bool(method.summary()), "give the class a docstring: its first line describes the method in `list`")
    require(bool(method.reference), "set `reference` to author, year and identifier of the paper: reports cite it")
    require(isinstance(method.version, int), f"`version` is {method.version!r}: it must be a whole number")
    _json("the options", method.config.model_dump())
    spec = canonical(method)
    try:
        again = parse_method(spec)
    except BenchError as error:
        raise ContractError(f"its own spec '{spec}' does not parse: use numbers and plain words as options") from error
    require(
        again.config == method.config,
        f"the spec '{spec}' parses to other options: use numbers and plain words as options",
    )


def check_sizes(subject: Subject) -> None:
    """accepts or refuses a size in check_size(), with a SpecError."""
    for size in range(LARGEST_SIZE + 1):
        try:
            subject.method.check_size(size)
        except SpecError:
            continue
        except Exception as error:
            raise ContractError(
                f"check_size({size}) raises {type(error).__name__}: raise dbn_core.SpecError with a sentence instead"
            ) from error
        require(size > 0, "check_size(0) raises nothing: refuse sizes below 1 with a SpecError")
    require(bool(subject.sizes), f"check_size() accepts no size from 1 to {LARGEST_SIZE}: accept at least one")


def check_parts(subject: Subject) -> None:
    """lists well-formed parts, each after those it needs, the same in every call."""
    for size in subject.sizes:
        parts = list(subject.method.parts(size))
        other = list(subject.again().parts(size))
        require(
            parts == list(subject.method.parts(size)) == other,
            f"parts({size}) gives different parts in a second call: let them depend on the size and the options alone",
        )
        seen: set[str] = set()
        for part in parts:
            _check_part(part, size, seen)
            seen.add(part.name)


def _check_part(part: Part, size: int, seen: set[str]) -> None:
    require(isinstance(part, Part), f"parts({size}) lists {part!r}: list dbn_core.Part objects")
    name = str(part.name)
    require(
        bool(_PART_NAME.fullmatch(name)),
        f"parts({size}) lists the name {part.name!r}: use letters, digits, '-' and '_'",
    )
    require(name not in seen, f"parts({size}) lists '{name}' twice: give each part a name of its own")
    missing = ", ".join(sorted(set(part.needs) - seen))
    require(not missing, f"parts({size}) lists '{name}' before '{missing}': swap them")
    _check_positions(f"part '{name}'", part.members, size)
    if part.settings is not None:
        _json(f"the settings of part '{name}'", dict(part.settings))
    require(part.teacher_mixup is None or part.teacher_mixup >= 0, f"part '{name}': teacher_mixup must be at least 0")
    if unknown := set(part.teacher_augmentation) - {"crop_pad", "flip", "cutmix"}:
        raise ContractError(
            f"part '{name}': teacher_augmentation takes crop_pad, flip and cutmix, not '{min(unknown)}'"
        )
    require(not (part.owner and part.settings is None), f"part '{name}' has an owner: give it the owner's settings")


def _check_positions(what: str, members: Any, size: int) -> None:
    good = isinstance(members, tuple) and all(type(m) is int and 0 <= m < size for m in members)
    require(good, f"{what} at size {size} reads the members {members!r}: give a tuple of positions in 0..{size - 1}")


def _json(what: str, value: Any) -> None:
    try:
        canonical_json(value)
    except (TypeError, ValueError) as error:
        raise ContractError(f"{what} cannot be written as JSON ({error}): use numbers, strings and lists") from error


def check_members(subject: Subject) -> None:
    """names the members that its predictor uses, the same in every call."""
    for size in subject.sizes:
        members = subject.method.members(size)
        _check_positions("members()", members, size)
        require(
            members == subject.again().members(size),
            f"members({size}) differs in a second call: let it depend on the size and the options alone",
        )


def check_predictions(subject: Subject) -> str:
    """returns normalised log-probabilities of the right shape, or what its task asks for."""
    tensors = [tensor for size in subject.sizes for tensor in _predict(subject, size).values()]
    zeros = sum(int(torch.isneginf(tensor).sum()) for tensor in tensors if tensor.is_floating_point())
    if not zeros:
        return ""
    return (
        f"{zeros} predicted log-probabilities are minus infinity. Where all terms of an example have it, the "
        f"probability counts as {FLOOR:.2g} in scores, and the NLL depends on that. Unless zeros are intended, as in a "
        "vote, replace softmax().log() by log_softmax()."
    )


def _predict(subject: Subject, size: int) -> dict[str, torch.Tensor]:
    draws = generator(check="predict")
    with seeded(_CPU, check="predict"):
        return subject.task.predict(subject.predictor(size), subject.data, _CPU, draws, subject.method.name)


def check_predicts_again(subject: Subject) -> None:
    """predicts the same in every call."""
    predictor, images = subject.predictor(subject.first), _images(subject)
    first = _forward(subject, predictor, images)
    require(torch.equal(images, _images(subject)), "the predictor changes its input images in place: work on a copy")
    _forward(subject, predictor, 1 - images)
    second = _forward(subject, predictor, images)
    rebuilt = _forward(subject, subject.predictor(subject.first), images)
    require(
        torch.equal(first, second),
        "a second call of the predictor gives other numbers: keep no state between calls, and draw from a generator "
        "that is seeded in each, or from the global ones, which the harness seeds",
    )
    require(
        torch.equal(first, rebuilt),
        "a predictor that is built again gives other numbers: draw from context.generator(...), or from the global "
        "generators, which the harness seeds",
    )
    drawn = _draws(subject, predictor, images)
    other_format = images if drawn else images.contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        timed = _forward(subject, predictor, other_format)
    require(
        torch.allclose(first, timed, atol=1e-3),
        "the predictor gives other numbers in inference mode, or in channels_last: let it depend on neither",
    )


def check_examples_are_independent(subject: Subject) -> None:
    """predicts an example alike in every batch."""
    predictor, images = subject.predictor(subject.first), _images(subject)
    together, others = _forward(subject, predictor, images), images.clone()
    others[1::2] = 1 - others[1::2]
    gap = (together - _forward(subject, predictor, others))[::2].abs().max()
    if not _draws(subject, predictor, images):  # draws for an example may depend on its place in the batch
        alone = torch.cat([_forward(subject, predictor, x[None]) for x in images])
        gap = max(gap, (together - alone).abs().max())
    require(bool(gap < 1e-3), f"predictions change by {gap:.3g} with the rest of the batch: use evaluation statistics")


def check_nested_terms(subject: Subject) -> None:
    """when nested, returns the terms of a small size as the first terms of a larger one."""
    if not subject.method.nested or len(subject.sizes) < 2:
        return
    small, large = subject.sizes[:2]
    a, b = (_terms(subject, size) for size in (small, large))
    terms = subject.method.terms(small)
    require(len(a) == terms, f"terms({small}) is {terms}, but the predictor returns {len(a)} terms: make them agree")
    require(
        torch.equal(a, b[: len(a)]),
        f"the terms at size {small} are not the first terms at size {large}: order them so, or set nested = False",
    )


def _terms(subject: Subject, size: int) -> torch.Tensor:
    """All terms [M, B, ...] of a size on some images."""
    predictor = subject.predictor(size)  # may train the parts it needs
    with seeded(_CPU, check="predict"), torch.no_grad():
        output: torch.Tensor = predictor(_images(subject))
    return output[None] if output.ndim == 2 else output


def check_cost(subject: Subject) -> None:
    """has a cost that can be counted, or states it."""
    size = subject.first
    predictor, example = subject.predictor(size), _images(subject)[:1]
    first, again = count_in_torch(predictor, example), count_in_torch(predictor, example)
    require(
        first == again,
        f"a second prediction of the same image takes {again.macs:,} multiply-adds instead of {first.macs:,}: "
        "keep no results between calls",
    )
    method, context = subject.again(), subject.predict_context(size)
    predictor_cost(predictor, example, lambda counted: method.cost(size, context, counted), method.name)


def check_global_state(subject: Subject) -> None:
    """leaves torch's global settings and seeds alone."""
    predictor = subject.predictor(subject.first)
    with seeded(_CPU, check="forward"), subject.watch(), torch.no_grad():
        predictor(_images(subject))
    if subject.disturbed:
        raise ContractError(
            f"fitting or predicting changes {min(subject.disturbed)} of torch: do not change it; the harness seeds "
            "every part and prediction"
        )


CHECKS: tuple[Callable[[Subject], str | None], ...] = (
    check_is_described,
    check_sizes,
    check_parts,
    check_members,
    check_fit,
    check_members_stay_frozen,
    check_keeps_nothing,
    check_same_seed_same_bits,
    check_resumes,
    check_precisions_and_teachers,
    check_predictions,
    check_predicts_again,
    check_examples_are_independent,
    check_nested_terms,
    check_cost,
    check_global_state,
)


def _images(subject: Subject) -> torch.Tensor:
    return to_float(subject.data.test.images[:8])


def _forward(subject: Subject, predictor: nn.Module, images: torch.Tensor, draw: int = 0) -> torch.Tensor:
    """What is predicted for images [B, C, H, W], examples first."""
    with seeded(_CPU, check="forward", draw=draw), torch.no_grad():
        return subject.task.numbers(predictor(images))


def _draws(subject: Subject, predictor: nn.Module, images: torch.Tensor) -> bool:
    """Whether the predictor draws from the global generators."""
    return not torch.equal(_forward(subject, predictor, images), _forward(subject, predictor, images, draw=1))


def check_method(method: Method, checks: Sequence[Callable[[Subject], str | None]] = CHECKS) -> Iterator[CheckResult]:
    """Run the checks over a method."""
    yield from run_checks(checks, make_subject(method))
