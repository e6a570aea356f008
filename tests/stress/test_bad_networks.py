"""Weights files, network tables, network plugins and entries that are wrong: a sentence, and no file is touched."""

from __future__ import annotations

import functools
import io
import json
import pickle
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save
from torch import nn

from benchmarks.entries import FILE
from benchmarks.suite.load import load_suite
from dbn_core.methods.context import FitContext
from dbn_core.nets.spec import classifier_spec
from dbn_core.tasks.classification import Classification
from dbn_core.train.recipe import Recipe
from tests.stress.asking import answered, sandbox, tries
from tests.stress.figures import Tally
from tests.stress.mutations import JUNK, TEXTS, damaged, scrambled, toml

ROOT = Path(__file__).resolve().parents[2]
ENTRY = json.loads(next((ROOT / "results" / "entries").glob("*/*/" + FILE)).read_text(encoding="utf-8"))
MEMBER = {"name": "resnet8", "channels": 4, "width": 1.0, "norm": "batchnorm", "bias": False}

State = dict[Any, Any]


# ------------------------------------------------------------------------------------------------------ weights


@functools.lru_cache(maxsize=1)
def good_states() -> tuple[State, State]:
    """Weights of two members of the digits that are better than guessing."""
    suite = load_suite("digits", {"data.split": "fixed", "data.test_fraction": 0.5})
    data = suite.data.for_repetition(0, 0).load()
    states = []
    for index in range(2):
        context = FitContext(
            data=data, spec=classifier_spec(MEMBER), device=torch.device("cpu"), axes={"index": index},
            recipe=Recipe(epochs=3, batch_size=64, lr=0.1, crop_pad=0),
        )  # fmt: skip
        network = context.new_network()
        context.train(
            network, Classification().member_step(network, context.recipe, context.generator("t")), context.recipe
        )
        states.append(network.state_dict())
    return states[0], states[1]


def reshaped(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.reshape(-1)[: tensor.numel() // 2] if tensor.numel() > 1 else torch.zeros(2, 3)


# What happens to one tensor of a state dict.
TENSORS: dict[str, Callable[[torch.Tensor], Any]] = {
    "half of it": reshaped,
    "one more dimension": lambda t: t[None],
    "no elements": lambda t: torch.zeros(0),
    "a number": lambda t: 3.0,
    "text": lambda t: "weights",
    "nothing": lambda t: None,
    "a list": lambda t: t.tolist(),
    "NaN": lambda t: torch.full_like(t, float("nan")) if t.is_floating_point() else t[None],
    "infinite": lambda t: t / 0 if t.is_floating_point() else t[None],
    "huge": lambda t: t * 1e30 if t.is_floating_point() else t,
    "integers": lambda t: t.long() + 7,
    "complex": lambda t: t.to(torch.complex64) if t.is_floating_point() else t,
    "boolean": lambda t: t > 0,
    "double": lambda t: t.double(),
    "half": lambda t: t.half(),
    "sparse": lambda t: t.to_sparse() if t.ndim else t,
    "without data": lambda t: torch.empty(t.shape, device="meta"),
    "a parameter": lambda t: nn.Parameter(t) if t.is_floating_point() else t,
    "zeros": torch.zeros_like,
}
# What happens to the whole.
WHOLES: dict[str, Callable[[State], Any]] = {
    "as it is": lambda s: s,
    "wrapped": lambda s: {"epoch": 3, "state_dict": s},
    "wrapped twice": lambda s: {"model": {"net": s}},
    "wrapped in junk": lambda s: {"state_dict": {"weights": 3}},
    "prefixed": lambda s: {f"module.{name}": value for name, value in s.items()},
    "partly prefixed": lambda s: {f"module.{n}" if i % 2 else n: v for i, (n, v) in enumerate(s.items())},
    "without names": lambda s: list(s.values()),
    "numbered": lambda s: dict(enumerate(s.values())),
    "empty": lambda s: {},
    "optimiser": lambda s: {"state": {}, "param_groups": [{"lr": 0.1}]},
    "of itself": lambda s: {"state_dict": {"state_dict": {"state_dict": {}}}},
    "a module": lambda s: nn.Linear(2, 2),
    "one tensor": lambda s: next(iter(s.values())),
    "path": lambda s: Path("w.pt"),
}


@st.composite
def weights_files(draw: st.DrawFn, state: State) -> tuple[str, bytes]:
    """Name and content of a weights file that went wrong in one or two ways."""
    state = dict(state)
    for _ in range(draw(st.integers(0, 2))):
        name = draw(st.sampled_from(sorted(state)))
        how = draw(st.sampled_from(["tensor", "tensor", "tensor", "remove", "rename", "add"]))
        if how == "remove":
            del state[name]
        elif how == "rename":
            state[draw(st.sampled_from([f"{name}x", "", "x" * 3000, "Ω\n\x00", name.upper()]))] = state.pop(name)
        elif how == "add":
            state["extra"] = torch.zeros(2)
        elif isinstance(state[name], torch.Tensor) and not state[name].is_meta:
            try:
                state[name] = TENSORS[draw(st.sampled_from(sorted(TENSORS)))](state[name])
            except (RuntimeError, NotImplementedError):  # a second change of a changed tensor
                state[name] = None
    whole = WHOLES[draw(st.sampled_from(["as it is"] * 12 + sorted(WHOLES)))](state)
    suffix = draw(st.sampled_from([".pt", ".pt", ".pth", ".bin", ".safetensors"]))
    content = serialised(whole, draw(st.sampled_from(["torch", "torch", "legacy", "safetensors", "pickle"])))
    return f"member{suffix}", draw(scrambled(content)) if draw(st.integers(0, 3)) == 0 else content


def serialised(whole: Any, how: str) -> bytes:
    """As well as that kind of file can hold it."""
    stream = io.BytesIO()
    if how == "safetensors":
        try:
            return save({name: tensor.contiguous() for name, tensor in whole.items()})
        except Exception:  # something that this format does not hold
            how = "torch"
    if how == "pickle":
        return pickle.dumps(list(whole) if isinstance(whole, dict) else str(whole))
    try:
        torch.save(whole, stream, _use_new_zipfile_serialization=how == "torch")
    except Exception:
        return repr(whole).encode()
    return stream.getvalue()


NEW = ("--data", "digits", "--network", "resnet8", "--set", "data.split=fixed", "--set", "data.test_fraction=0.5")
NEW += tuple(word for key, value in MEMBER.items() for word in ("--set", f"network.{key}={json.dumps(value)}"))


@tries(160, 6)
@given(data=st.data())
def test_weights_of_members(tally: Tally, data: st.DataObject) -> None:
    first, second = good_states()
    with sandbox() as box:
        name, content = data.draw(weights_files(first))
        box.file(name, content)
        torch.save(second, box.cwd / "second.pt")
        answered(tally, box, ["new", "mine", *NEW, "--members", name, "--members", "second.pt"], ["member", "suite"])


TINY = """
from torch import nn
from dbn_core import register_network

@register_network("tiny")
class Tiny(nn.Sequential):
    def __init__(self, classes, channels, width=4):
        super().__init__(nn.Conv2d(channels, width, 3), nn.ReLU(), nn.Flatten(), nn.Linear(width * 36, classes))
"""
CHECK = ("--image", "1x8x8", "--classes", "3")


@tries(80, 4)
@given(data=st.data())
def test_weights_to_start_from(tally: Tally, data: st.DataObject) -> None:
    shapes = {"0.weight": (4, 1, 3, 3), "0.bias": (4,), "3.weight": (3, 144), "3.bias": (3,)}
    state = {name: torch.zeros(shape) for name, shape in shapes.items()}
    with sandbox() as box:
        name, content = data.draw(weights_files(state))
        box.file(name, content)
        box.file("tiny.py", TINY)
        answered(tally, box, ["check-network", "tiny.py", *CHECK, "--set", f"weights={name}"])


# ------------------------------------------------------------------------------------------------------- tables

SUITE = """
title = "T"
repetitions = 1
[data]
source = "digits"
test_fraction = 0.9
[network]
[pool]
members = 3
[recipe]
[students]
epochs = 1
[[methods]]
use = "de"
sizes = [1, 2]
[[methods]]
use = "dbn"
sizes = [3]
options = { split_at = "blocks.0" }
"""
TABLES: list[dict[str, Any]] = [
    {
        "name": "timm:vit_tiny_patch16_224",
        "options": {"img_size": 8, "patch_size": 4, "embed_dim": 8, "depth": 1, "num_heads": 2},
        "input_size": 8,
        "mean": [0.5],
        "std": [0.25],
    },
    {"name": "resnet8", "channels": 4, "width": 1.0, "norm": "frn", "bias": True, "stem": "3x3", "preactivation": True},
    {"name": "wrn10-1", "channels": 4, "norm": "batchnorm"},
    {"name": "torchvision:squeezenet1_1", "input_size": 32, "options": {"dropout": 0.1}},
    {"name": "tiny", "options": {"width": 4}},
]


@tries(200, 8)
@given(tree=st.sampled_from(TABLES).flatmap(damaged), command=st.sampled_from(["status", "run", "check-network"]))
def test_network_tables(tally: Tally, tree: dict[str, Any], command: str) -> None:
    suite = tomllib.loads(SUITE)
    suite["network"] = tree
    with sandbox() as box:
        box.file("suite.toml", toml(suite))
        box.file("tiny.py", TINY)
        words = {"run": ["--dry-run", "--store", box.store], "status": ["--store", box.store], "check-network": CHECK}
        answered(tally, box, [command, "suite.toml", "--plugin", "tiny.py", *words[command]])


@tries(80, 4)
@given(
    name=st.one_of(
        TEXTS, st.sampled_from(["timm:", "torchvision:", "timm:resnet", "torchvision:vit", "wrn28", "resnet9", ":"])
    ),
    option=st.sampled_from(["--image", "--classes", "--set", "--plugin"]),
    value=st.one_of(TEXTS, JUNK.map(lambda value: str(value)[:60] if not isinstance(value, int) else hex(value)[:60])),
)
def test_names_and_options_of_check_network(tally: Tally, name: str, option: str, value: str) -> None:
    with sandbox() as box:
        words = [name or "x", f"{option}={value}"]
        answered(
            tally,
            box,
            [
                "check-network",
                *(word.replace("\x00", "").lstrip("-") or "x" for word in words[:1]),
                words[1].replace("\x00", ""),
            ],
        )


# ------------------------------------------------------------------------------------------------------ plugins

CONSTRUCTORS = [
    "1 / 0",
    "raise SystemExit(3)",
    "raise KeyError",
    "raise BaseException('x\\ny\\x1b')",
    "self.__init__(classes, channels)",
    "pass",
    "super().__init__(); self.a = nn.Linear(-1, classes)",
    "super().__init__(nn.Conv2d(3, 4, 3))",
    "super().__init__(nn.Flatten())",
    "super().__init__(nn.Flatten(), nn.Linear(64, classes - 1))",
    "super().__init__(nn.Flatten(), nn.Linear(64, classes), nn.Softmax(7))",
    "super().__init__(nn.Flatten(), nn.Linear(64, classes).to(torch.complex64))",
    "super().__init__(nn.Flatten(), nn.Linear(64, classes).half())",
    "super().__init__(nn.Flatten(), nn.LazyLinear(classes))",
    "super().__init__(nn.LSTM(8, classes))",
]
FORWARDS = [
    "return None",
    "return x",
    "return x.mean()",
    "return (x, x)",
    "return {'logits': x}",
    "return x.numpy()",
    "return [x]",
    "raise ValueError('a\\nb')",
    "raise SystemExit",
    "return self(x)",
    "return torch.zeros(len(x), self.classes) / 0",
    "return torch.randn(len(x), self.classes)",
    "return super().forward(x).long()",
    "return super().forward(x)[: len(x) - 1]",
    "return super().forward(x, x)",
]
NO_NETWORKS = ["5", "None", "nn", "print", "lambda: 3", "lambda c, d: c", "nn.Linear", "nn.Module", "object"]
REGISTRATIONS = [
    "5",
    "''",
    "None",
    "'timm:x'",
    "'resnet8'",
    "'wrn1'",
    "'a\\nb'",
    "'x' * 3000",
    "'../mine'",
    "b'mine'",
    "",
]


@st.composite
def network_plugins(draw: st.DrawFn) -> str:
    """A file that registers a network ``mine`` and is wrong in one place."""
    where = draw(st.sampled_from(["constructor", "forward", "forward", "name", "signature", "what", "bytes"]))
    good = "super().__init__(nn.Flatten(), nn.Linear(64, classes)); self.classes = classes"
    constructor = draw(st.sampled_from(CONSTRUCTORS)) if where == "constructor" else good
    forward = draw(st.sampled_from(FORWARDS)) if where == "forward" else "return super().forward(x)"
    name = draw(st.sampled_from(REGISTRATIONS)) if where == "name" else "'mine'"
    signature = (
        draw(st.sampled_from(["self", "self, classes", "self, *, classes", "classes", "self, a, b, c"]))
        if where == "signature"
        else "self, classes, channels"
    )
    text = (
        "import torch\nfrom torch import nn\nfrom dbn_core import register_network\n"
        f"@register_network({name})\nclass Mine(nn.Sequential):\n"
        f"    def __init__({signature}):\n        {constructor}\n"
        f"    def forward(self, x):\n        {forward}\n"
    )
    if where == "what":
        text = f"{text.partition('@')[0]}register_network('mine')({draw(st.sampled_from(NO_NETWORKS))})\n"
    return text if where != "bytes" else draw(scrambled(text.encode())).decode("latin-1")


@tries(150, 8)
@given(text=network_plugins(), command=st.sampled_from(["check-network", "run", "list"]))
def test_network_plugins(tally: Tally, text: str, command: str) -> None:
    suite = tomllib.loads(SUITE)
    suite["network"], suite["methods"] = {"name": "mine"}, suite["methods"][:1]
    with sandbox() as box:
        box.file("suite.toml", toml(suite))
        box.file("mine.py", text)
        words = {"check-network": ["mine.py", *CHECK], "list": ["--plugin", "mine.py"]}
        words["run"] = ["suite.toml", "--dry-run", "--plugin", "mine.py", "--store", str(box.store)]
        answered(tally, box, [command, *words[command]])


# ------------------------------------------------------------------------------------------------------ entries


@tries(150, 8)
@given(
    tree=damaged({**ENTRY, "predictions": "", "status": "stated", "repetitions": None}),
    raw=st.booleans(),
    data=st.data(),
)
def test_entries(tally: Tally, tree: dict[str, Any], raw: bool, data: st.DataObject) -> None:
    with sandbox() as box:
        try:
            content = json.dumps(tree, default=str).encode()
        except ValueError:  # a number that no JSON can hold
            content = b"{"
        folder = f"results/entries/{ENTRY['suite']}/{ENTRY['name']}"
        box.file(f"{folder}/{FILE}", data.draw(scrambled(content)) if raw else content)
        answered(tally, box, ["leaderboard", *data.draw(st.sampled_from([[], ["--rescore"], ["nosuch"]]))])


GOOD = {"method": "Mine", "size": "3", "paper": "none", "code": "none", "licence": "MIT", "who": "me", "name": "mine-3"}
GOOD |= {"stated": "acc=0.9", "macs": "1e6", "params": "1000", "note": "a note"}


@tries(100, 6)
@given(
    option=st.sampled_from(sorted(GOOD)),
    value=st.one_of(
        TEXTS,
        JUNK.map(lambda value: str(value)[:60] if not isinstance(value, int) else hex(value)[:60]),
        st.sampled_from(["acc=90", "nll=-1", "dee_raw=<1", "acc=nan", "x=1", "acc", "=", "../x", "a/b"]),
    ),
)
def test_submissions(tally: Tally, option: str, value: str) -> None:
    with sandbox() as box:
        given = GOOD | {option: value.replace("\x00", "")}
        answered(tally, box, ["submit", "digits", *(f"--{name}={text}" for name, text in given.items())])
