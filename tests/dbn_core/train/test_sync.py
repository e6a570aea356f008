"""No training step waits for its device: what would, on a GPU, is counted over trainings of two lengths."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from torch.optim.swa_utils import AveragedModel
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

import dbn_core.methods.evaluation
from dbn_core.data.dataset import Dataset, Split
from dbn_core.data.views import Augmentation, Views
from dbn_core.methods.context import FitContext, freeze
from dbn_core.methods.method import Part
from dbn_core.methods.registry import parse_method
from dbn_core.nets.spec import NetworkSpec
from dbn_core.train import loop
from dbn_core.train.recipe import Recipe

# Reading a number, or a shape that depends on numbers, makes the host wait for all that the device has queued.
WAITING = {"_local_scalar_dense", "nonzero", "equal", "masked_select", "unique", "_unique2", "is_nonzero"}
MINI = "split_at=block2,score_network=mini,batch_size=8"
# Without BN: its curve reads one number a step from a generator, which lives on the CPU.
SPECS = [
    ("ed[mixup=0.4,alpha=0.5]", "stored"),
    ("hydra[split_at=block2,mixup=0.4,cutmix=1]", "online"),
    ("end2", "stored"),
    (f"direct[{MINI},loss=kl]", "online"),
    (f"dbn[{MINI}]", "stored"),
    (f"dbn[{MINI},preset=paper]", "online"),
    (f"dbn[{MINI},process=rectified_flow]", "online"),
    ("shared[split_at=block1]", "online"),
]


class Waits(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.count: Counter[str] = Counter()
        self.paused = False  # AdamW reads its step numbers, which it keeps on the CPU

    def __enter__(self) -> Waits:
        def pause(value: bool) -> Callable[..., None]:
            return lambda *_: setattr(self, "paused", value)

        self.hooks = register_optimizer_step_pre_hook(pause(True)), register_optimizer_step_post_hook(pause(False))
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        for hook in self.hooks:
            hook.remove()
        super().__exit__(*error)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in WAITING and not self.paused:
            self.count[name] += 1
        if name.startswith("index") and any(
            index is not None and index.dtype == torch.bool for index in args[1] if isinstance(args[1], list | tuple)
        ):
            self.count["index by a mask"] += 1
        return func(*args, **(kwargs or {}))


def waits(spec: str, epochs: int, taught: str) -> tuple[Counter[str], int, int]:
    """What waits while a part is made in so many epochs; epochs and steps of all its trainings."""
    draw = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (24, 3, 8, 8), dtype=torch.uint8, generator=draw)
    split, names = Split(images, torch.arange(24) % 5), tuple("abcde")
    data = Dataset("random", "random", split, split, split, names, (0.5,) * 3, (0.25,) * 3, True)
    network = NetworkSpec(name="resnet8", channels=4, width=1.0)
    recipe = Recipe(epochs=epochs, batch_size=8, lr=0.01, crop_pad=1, mixup=0.0)
    context = FitContext(data, network, torch.device("cpu"), {}, recipe=recipe, student_epochs=epochs)
    method = parse_method(spec)
    part: Part = method.parts(3)[0]
    context.members = [freeze(context.new_network(f"member {m}")) for m in part.members]
    if taught == "stored" and part.teacher_mixup is not None:
        cutmix = part.teacher_recipe(recipe).cutmix
        context.stored_views = Views(split, Augmentation(1, True, part.teacher_mixup, cutmix), 2, {})
        context.stored_logits = [torch.randn(2, 24, 5, generator=draw).half() for _ in part.members]
    with Waits() as seen:
        method.fit(part, context)
    return seen.count, sum(log.epochs for log in context.logs), sum(log.steps for log in context.logs)


@pytest.fixture(autouse=True)
def _nothing_else_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "MONITOR_SECONDS", float("inf"))  # a look at the loss in every second
    # Whether it averages for the first time, AveragedModel asks of a number that it keeps on the CPU.
    monkeypatch.setattr(AveragedModel, "update_parameters", uncounted(AveragedModel.update_parameters))
    monkeypatch.setattr(
        dbn_core.methods.evaluation, "evaluate_split", uncounted(dbn_core.methods.evaluation.evaluate_split)
    )


def uncounted(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arguments: Any) -> Any:
        with _disable_current_modes():
            return function(*arguments)

    return call


@pytest.mark.parametrize(("spec", "taught"), SPECS)
def test_a_step_never_waits(spec: str, taught: str) -> None:
    short, epochs_of_short, steps_of_short = waits(spec, 2, taught)
    long, epochs_of_long, steps_of_long = waits(spec, 3, taught)
    epochs = epochs_of_long - epochs_of_short
    assert steps_of_long - steps_of_short >= 3 * epochs > 0
    # What an epoch may do: look once at its mean loss.
    assert dict(long - short) == {"_local_scalar_dense": epochs}


def test_the_counter_sees_what_waits() -> None:
    x = torch.arange(4.0)
    with Waits() as seen:
        float(x[0])
        x[x > 1]
        bool((x > 1).any())
    assert seen.count["_local_scalar_dense"] == 2
    assert seen.count["index by a mask"] == 1
