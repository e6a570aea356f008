"""The contract tests over every built-in method, and its training in both precisions with every kind of teachers."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.contract.check import CHECKS, _predict, check_method
from benchmarks.contract.subject import RECIPE, Fitted, Subject, make_subject
from benchmarks.contract.training import check_precisions_and_teachers
from dbn_core.methods.method import Method
from dbn_core.methods.registry import canonical, methods, parse_method
from dbn_core.nets.spec import NetworkSpec

MINI = "split_at=block2,score_network=mini"
# Options that shorten the checks: blocks that a shallow network has, few networks, steps and trees.
SHORT = {
    "aggregate": "steps=2",
    "bn": "split_at=block2",
    "cycles": "cycles=2",
    "dbn": MINI,
    "direct": MINI,
    "distil": "teacher=de-tta",
    "edfm": "draws=3,intervals=2",
    "experts": "steps=2",
    "forest-rule": "trees=3,levels=3,duplicates=2",
    "hydra": "split_at=block2",
    "mc-dropout-score": "steps=2",
    "perturbed": "split_at=block2",
    "score-ensemble": "steps=2",
    "step-distillation": "start=4,steps=2",
    "student-bridge": MINI,
    "swa": "epochs=3",
    "swag": "epochs=3,samples=2",
}
# What `forest` does is a part of `forest-rule`.
METHODS = {name: f"{name}[{SHORT[name]}]" if name in SHORT else name for name in methods() if name != "forest"}


@pytest.mark.parametrize("spec", [*METHODS.values(), f"dbn[{MINI},preset=paper]", "ed[averaged_epochs=1]"])
def test_the_built_ins_keep_the_contract(spec: str) -> None:
    checks = [check for check in CHECKS if check is not check_precisions_and_teachers]  # the test below does more
    results = list(check_method(parse_method(spec), checks))
    assert len(results) == len(checks)
    assert not [result for result in results if result.outcome != "ok"]


@pytest.mark.parametrize("spec", methods())
def test_the_network_of_the_check_has_the_blocks_that_options_name(spec: str, trial_network: NetworkSpec) -> None:
    at = getattr(parse_method(spec).config, "split_at", "block1")
    assert int(at.removeprefix("block")) <= sum(trial_network.stages)


# -------------------------------------------------------------------------------------------- precisions and teachers

# Of each method the ways whose arithmetic differs; a new method without an entry is tried as above.
WAYS: dict[str, list[str]] = {
    "ed": ["ed", "ed[alpha=0.5,mixup=0.4,width=0.5]"],
    "end2": ["end2[prediction=dirichlet]"],
    "bn": ["bn[split_at=block2]", "bn[split_at=block2,type=2,align=true,keep=best]"],
    "dbn": [
        f"dbn[{MINI}]",
        f"dbn[{MINI},preset=paper]",
        f"dbn[{MINI},sees_state=true,loss=kl]",
        f"dbn[{MINI},process=rectified_flow]",
        f"dbn[{MINI},prior=gaussian,sampler_noise=posterior,distill=false]",
        f"dbn[{MINI},perturb_input=true]",
    ],
    "direct": [f"direct[{MINI},loss=kl]"],
    "hydra": ["hydra[split_at=block2,mixup=0.4]"],
    "student-bridge": [
        f"student-bridge[{MINI},source_members=1,members_per_bridge=1,joint={joint}]" for joint in ("false", "true")
    ],
}
SPECS = [
    spec
    for name, short in METHODS.items()
    if methods()[name].task == "classification"
    for spec in WAYS.get(name, [short])
]
SEVERAL_STEPS = {"cycles", "swa", "swag"}  # for any budget: they save networks on their way
# What a loss, a target or a statistic is made of; none of it keeps its meaning in half precision.
DELICATE = {"_log_softmax", "_softmax", "logsumexp", "lgamma", "digamma", "nll_loss_forward", "mse_loss", "rsqrt"}
HALVES = (torch.bfloat16, torch.float16)


class Watch(TorchDispatchMode):
    """Which operations see half-precision numbers, below autocast."""

    def __init__(self) -> None:
        super().__init__()
        self.in_half: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(isinstance(x, torch.Tensor) and x.dtype in HALVES for x in args):
            self.in_half.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def fitted(subject: Subject, size: int, precision: str, teachers: str) -> dict[str, Fitted]:
    """All parts in one epoch of one step."""
    recipe, made = RECIPE.replace(epochs=1, precision=precision, batch_size=len(subject.data.train)), {}
    for part in subject.method.parts(size):
        stored = teachers != "online" and part.teacher_mixup is not None
        options = subject.views(part, unseen="unseen" in teachers) if stored else {}
        made[part.name] = subject.fit(part, {name: other.state for name, other in made.items()}, recipe, **options)
        assert not (stored and made[part.name].context.teacher_passes)
    return made


def ways_to_teach(method: Method, size: int) -> tuple[str, ...]:
    """From stored logits where members teach; also online for one way of a method, and on unseen images for ED."""
    if all(part.teacher_mixup is None for part in method.parts(size)):
        return ("online",)
    first = canonical(method) == canonical(parse_method(WAYS.get(method.name, [METHODS[method.name]])[0]))
    return ("views(2)", *["online"] * first, *["views(2, unseen)"] * (first and method.name == "ed"))


@pytest.mark.parametrize("spec", SPECS)
def test_a_method_trains_in_both_precisions_by_all_teachers(spec: str) -> None:
    method = parse_method(spec)
    subject = make_subject(method)
    size = subject.sizes[-1] if subject.sizes == [1, 2] else subject.first
    for teachers in ways_to_teach(method, size):
        predictions = []
        for precision in ("fp32", "bf16"):
            with Watch() as watch:
                made = fitted(subject, size, precision, teachers)
            assert not watch.in_half & DELICATE
            trained = any(part.context.logs for part in made.values())
            assert ("convolution" in watch.in_half) == (precision == "bf16" and trained)
            for part in made.values():
                assert {tensor.dtype for tensor in part.state.values()} <= {torch.float32, torch.float64, torch.int64}
                assert all(math.isfinite(log.loss) for log in part.context.logs)
                assert method.name in SEVERAL_STEPS or all(log.steps == 1 for log in part.context.logs)
            subject._fitted[size] = made
            predictions.append(_predict(subject, size)["test"])
        assert predictions[1].dtype == torch.float32
        # The same step from the same start: what half precision changes is rounding.
        gap = predictions[0].exp().mean(0) - predictions[1].exp().mean(0)
        assert gap.abs().max() < 0.05


@pytest.mark.parametrize("suite", ["digits-field", "cifar10-cpu", "digits"])
def test_what_list_says_of_costs_is_what_was_counted(suite: str) -> None:
    rows = pd.read_csv(f"results/reference/{suite}/summary.csv").dropna(subset=["method"])
    for row in rows.itertuples():
        method = parse_method(str(row.method).partition(" | ")[0])
        runs = method.networks.removeprefix("runs ").partition(";")[0]
        if runs in ("1", "M"):  # a first or last layer may have more channels than a network's
            assert row.macs_rel == pytest.approx(1 if runs == "1" else row.size, rel=0.02), row.method
        elif runs == "M for each view":
            assert row.macs_rel in range(2 * row.size, 10 * row.size, row.size)
        else:
            assert 1 < row.macs_rel <= max(row.size, 3), (row.method, runs)
