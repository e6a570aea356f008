"""Contract tests of fitting: what :meth:`Method.fit` returns, changes and repeats.  Each covers every part."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from benchmarks.contract.promises import ContractError, require
from benchmarks.contract.subject import RECIPE, Subject
from dbn_core.errors import BenchError
from dbn_core.methods.method import Part
from dbn_core.tensors import is_finite

# How members may teach, as a suite writes it.
TEACHERS = ("online", "views(2)", "views(2, unseen)")


def check_fit(subject: Subject) -> None:
    """fits each part to finite tensors."""
    for size in subject.sizes:
        for name, made in subject.fitted(size).items():
            require(bool(made.state), f"fit('{name}') returns no tensors: do not list a part that stores nothing")
            for key, tensor in made.state.items():
                require(is_finite(tensor), f"fit('{name}') returns '{key}' with NaN or infinite numbers")


def check_members_stay_frozen(subject: Subject) -> None:
    """leaves the members as they are."""
    for part in subject.method.parts(subject.first):
        found = subject.fitted(subject.first)[part.name].context.members
        for position, member in zip(part.members, found, strict=True):
            theirs = member.state_dict()
            for key, tensor in subject.members[position].state_dict().items():
                same = torch.equal(tensor, theirs[key])
                require(same, f"fit('{part.name}') changes '{key}' of a member: work on a copy")
            require(not member.training, f"fit('{part.name}') leaves a member in training mode: work on a copy")


def check_keeps_nothing(subject: Subject) -> None:
    """keeps nothing on itself between calls."""
    for name, made in subject.refitted.items():
        if made.left:
            raise ContractError(
                f"parts() or fit('{name}') sets self.{made.left[0]}, which the predictor's process does not see: "
                "return it as a tensor of the part"
            )


def check_same_seed_same_bits(subject: Subject) -> None:
    """fits the same bits from the same seed."""
    for name, made in subject.fitted(subject.first).items():
        require(
            _same(made.state, subject.refitted[name].state),
            f"fitting '{name}' twice gives different weights: draw from context.generator(...), or from the "
            "global generators, which the harness seeds",
        )


def check_resumes(subject: Subject) -> None:
    """resumes a training that was killed, and gets the same bits."""
    for part in subject.method.parts(subject.first):
        made = subject.fitted(subject.first)[part.name]
        purposes = made.context.purposes
        if twice := sorted({purpose for purpose in purposes if purposes.count(purpose) > 1}):
            raise ContractError(
                f"fit('{part.name}') trains twice for the purpose '{twice[0]}', so the second training would resume "
                "from the checkpoint of the first: give each context.train(...) a purpose of its own"
            )
        if not purposes:
            continue
        with (
            mock.patch.multiple("dbn_core.train.loop", CHECKPOINT_SECONDS=-1.0, MONITOR_SECONDS=-1.0),
            tempfile.TemporaryDirectory() as folder,
        ):
            resumed = subject.interrupted(part, subject.first, Path(folder))
        require(
            resumed.context.steps[-1] == min(made.context.logs[-1].steps, 2),
            f"the training of '{part.name}' does not resume from its checkpoint, which does not fit the module when it "
            "is built again: give it the same parameters and buffers, of the same shapes, from the beginning",
        )
        require(
            _same(made.state, resumed.state),
            f"'{part.name}' gets different weights when its training is killed and resumed: keep what steps change "
            "in the trained module, and pass the generator that they draw from to context.train(step_generator=...)",
        )


def check_precisions_and_teachers(subject: Subject) -> None:
    """trains in fp32 and bf16, with teachers online, and from stored logits where it declares teacher_mixup."""
    for part in subject.method.parts(subject.first):
        trained = bool(subject.fitted(subject.first)[part.name].context.purposes)
        for teachers in TEACHERS if part.teacher_mixup is not None else TEACHERS[:1]:
            stored = {} if teachers == "online" else subject.views(part, unseen="unseen" in teachers)
            for precision in ("fp32", "bf16") if trained else ("fp32",):
                if (precision, teachers) != ("fp32", "online"):  # all other checks use these
                    _fit_with(subject, part, precision, teachers, stored)


def _fit_with(subject: Subject, part: Part, precision: str, teachers: str, stored: dict[str, Any]) -> None:
    """One epoch of a part, in one step unless it chooses its batches itself."""
    setting = f"precision = {precision} and teachers = {teachers}"
    recipe = RECIPE.replace(epochs=1, precision=precision, batch_size=len(subject.data.train))
    try:
        made = subject.fit(part, subject.states(subject.first), recipe, **stored)
    except Exception as error:
        reason = str(error) if isinstance(error, BenchError) else f"{type(error).__name__}: {error}"
        raise ContractError(f"part '{part.name}' does not fit with {setting}: {reason}") from error
    require(
        not (stored and made.context.teacher_passes),
        f"part '{part.name}' runs its teachers online although their logits are stored: call context.teach(batch), or "
        "leave teacher_mixup out",
    )
    for key, tensor in made.state.items():
        require(is_finite(tensor), f"part '{part.name}' has NaN or infinite numbers in '{key}' with {setting}")


def _same(first: dict[str, torch.Tensor], again: dict[str, torch.Tensor]) -> bool:
    return first.keys() == again.keys() and all(torch.equal(first[k], again[k]) for k in first)
