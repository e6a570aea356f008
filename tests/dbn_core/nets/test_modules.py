"""Networks of timm, torchvision and plugins: seeded weights, features at any node, costs, export."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch
from torch import nn

from dbn_core.errors import BenchError, PluginError, SpecError
from dbn_core.measure.cost import measure_cost
from dbn_core.methods.registry import parse_method
from dbn_core.nets import plugins
from dbn_core.nets.init import initialise_
from dbn_core.nets.modules import ModuleNetwork, module_from_file
from dbn_core.nets.network import HookTap, as_map
from dbn_core.nets.resnet import Classifier
from dbn_core.nets.spec import ModuleSpec, NetworkSpec, classifier_spec

TINY_VIT = {"img_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 2}
TINY_CONVNEXT = {"depths": [1, 1, 1, 1], "dims": [8, 16, 24, 32]}
# Name, options, side of the images, a node and the features expected there.
FAMILIES = [
    ("timm:vit_tiny_patch16_224", TINY_VIT, 16, "blocks.0", (24, 4, 4)),
    ("timm:convnext_atto", TINY_CONVNEXT, 32, "stages.0", (8, 8, 8)),
    ("timm:resnet10t", {}, 32, "layer1", (64, 8, 8)),
    ("torchvision:mobilenet_v3_small", {}, 32, "features.1", (16, 8, 8)),
]


def network(name: str, options: dict, channels: int = 3, seed: int = 0, **spec) -> ModuleNetwork:
    given = ModuleSpec(name=name, options=options, **spec)
    built = ModuleNetwork(given, 5, channels, [0.5] * channels, [0.25] * channels)
    initialise_(built, torch.Generator().manual_seed(seed))
    return built.eval()


@pytest.mark.parametrize(("name", "options", "side", "at", "shape"), FAMILIES, ids=[name for name, *_ in FAMILIES])
def test_a_network_of_a_library(name: str, options: dict, side: int, at: str, shape: tuple[int, ...]) -> None:
    images, before = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(1)), torch.get_rng_state()
    built, again, other = (network(name, options, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    tap = built.tap(at).eval()
    with torch.no_grad():
        h, logits = tap(images)
        assert torch.equal(logits, built(images))
        assert torch.equal(logits, again(images))
        assert not torch.equal(logits, other(images))
    assert h.shape == (2, *shape)
    assert measure_cost(built, images[:1]).macs > 0  # two counters agree on it
    if name.startswith(("timm:vit", "timm:convnext")):
        batch = torch.export.Dim("batch", min=1, max=64)
        program = torch.export.export(tap, (images,), dynamic_shapes=({0: batch},), strict=False).module()
        many = torch.cat([images, images, images[:1]])
        with torch.no_grad():
            for mine, exported in zip(tap(many), program(many), strict=True):
                torch.testing.assert_close(exported, mine, rtol=1e-5, atol=1e-5)


def test_images_of_one_channel_and_another_size() -> None:
    assert network("timm:resnet10t", {}, channels=1, input_size=32)(torch.rand(2, 1, 8, 8)).shape == (2, 5)


def test_tokens_lose_the_class_token() -> None:
    tokens = torch.arange(2 * 10 * 3, dtype=torch.float32).view(2, 10, 3)
    assert torch.equal(as_map(tokens), tokens[:, 1:].transpose(1, 2).reshape(2, 3, 3, 3))
    assert torch.equal(as_map(tokens[:, 1:]), as_map(tokens))
    assert as_map(tokens[:, :7]).shape == (2, 3, 1, 7)
    assert as_map(tokens[:, 0]).shape == (2, 3, 1, 1)


def test_weights_from_a_file(tmp_path: Path) -> None:
    options: dict = {}
    trained = network("timm:resnet10t", options, seed=3)
    torch.save({"epoch": 4, "state_dict": trained.body.state_dict()}, tmp_path / "w.pt")
    started = network("timm:resnet10t", options, seed=4, weights=tmp_path / "w.pt")
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(started(images), trained(images))
    key = ModuleSpec(name="timm:resnet10t", weights=tmp_path / "w.pt").key()
    (tmp_path / "w.pt").write_bytes(b"other")
    assert ModuleSpec(name="timm:resnet10t", weights=tmp_path / "w.pt").key() != key
    with pytest.raises(BenchError, match=r"w\.pt is no file of torch\.save, or is damaged"):
        network("timm:resnet10t", options, weights=tmp_path / "w.pt")


def test_a_plugin_s_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins.NETWORKS, "entries", {})

    @plugins.register_network("custom")
    def build(classes: int, channels: int, width: int = 8) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(channels, width, 3, 2, 1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(width, classes),
        )

    spec = classifier_spec({"name": "custom", "options": {"width": 4}})
    assert isinstance(spec, ModuleSpec)
    built = ModuleNetwork(spec, 5, 1, [0.5], [0.25])
    assert built.tap("1")(torch.rand(2, 1, 8, 8))[0].shape == (2, 4, 4, 4)
    with pytest.raises(SpecError, match="no option 'wdith' \\(did you mean 'width'"):
        network("custom", {"wdith": 3})
    with pytest.raises(PluginError, match="already taken"):
        plugins.register_network("custom")(nn.Linear)


def test_how_a_network_is_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins.NETWORKS, "entries", {})
    with pytest.raises(PluginError, match=r"write @register_network\('my-network'\)"):
        plugins.register_network(nn.Linear)  # type: ignore[arg-type]

    class Alone(nn.Module):
        def __init__(self, num_classes: int = 10) -> None:
            super().__init__()

    with pytest.raises(PluginError, match=r"as its first two arguments: write __init__\(self, classes, channels"):
        plugins.register_network("alone")(Alone)
    plugins.register_network("open")(lambda classes, channels, **options: nn.Conv2d(channels, classes, **options))
    assert network("open", {"kernel_size": 3}).body.kernel_size == (3, 3)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("timm:resnet10x", "timm has no network 'resnet10x'.*did you mean"),
        ("torchvision:resnet19", "torchvision has no classifier 'resnet19'"),
        ("mine", "Unknown network 'mine'.*--plugin FILE"),
    ],
)
def test_an_unknown_network_is_one_sentence(name: str, words: str) -> None:
    with pytest.raises(SpecError, match=words):
        network(name, {})


def test_bad_options_nodes_and_splits_are_sentences() -> None:
    for name in ("timm:resnet10t", "timm:vit_tiny_patch16_224", "torchvision:resnet18", "torchvision:vit_b_16"):
        with pytest.raises(SpecError, match=f"'{name}' has no option 'no_such_option'.*(known|did you mean)"):
            network(name, {"no_such_option": 1})
    built = network("timm:resnet10t", {})
    with pytest.raises(SpecError, match=r"no node 'layer9'.*Its outer nodes: conv1"):
        built.tap("layer9")
    sentence = (
        r"^dbn: the network has no node 'block1'\. Its outer nodes: .*\. Set its option split_at, whose default is"
    )
    with pytest.raises(SpecError, match=sentence) as said:
        parse_method("dbn").check_built(built, torch.rand(2, 3, 32, 32))
    assert str(said.value).count("fc") == 1
    with pytest.raises(SpecError, match="no chain of blocks"):
        built.split("block1")
    with pytest.raises(SpecError, match="one width"):
        ModuleSpec(name="timm:resnet10t").scaled(0.5)
    shared = nn.ReLU()
    with pytest.raises(SpecError, match="runs 2 times"):
        HookTap(nn.Sequential(shared, nn.Sequential(shared)), "0")(torch.rand(1, 3))


def test_a_resnet_s_tap_is_its_split() -> None:
    resnet = Classifier(NetworkSpec(name="resnet8", channels=4, width=1.0), 5, 3, [0.5] * 3, [0.25] * 3)
    initialise_(resnet, torch.Generator().manual_seed(0))
    images = torch.rand(2, 3, 8, 8)
    body, head = resnet.split("block2")
    tap = resnet.tap("block2")
    assert torch.equal(tap(images)[0], body(images))
    assert torch.equal(tap.features(images), body(images))
    assert torch.equal(tap(images)[1], head(body(images)))


def test_checkpoint_formats(tmp_path: Path) -> None:
    from dbn_core.nets.weights import load_weights

    small = nn.Linear(3, 2)
    for wrapped in (
        {f"module.{name}": value for name, value in small.state_dict().items()},
        {"model": {f"_orig_mod.module.{name}": value for name, value in small.state_dict().items()}, "epoch": 3},
    ):
        torch.save(wrapped, tmp_path / "a.pt")
        other = nn.Linear(3, 2)
        load_weights(other, tmp_path / "a.pt")
        assert torch.equal(other.weight, small.weight)
    buffer = io.BytesIO()
    torch.save(small, buffer)
    bad = {"whole.pt": buffer.getvalue(), "text.pt": b"no weights", "empty.pt": b""}
    for name, content in bad.items():
        (tmp_path / name).write_bytes(content)
    torch.save({"weight": torch.full((2, 3), float("nan")), "bias": torch.zeros(2)}, tmp_path / "nan.pt")
    torch.save({"weight": torch.zeros(4, 3), "bias": torch.zeros(4)}, tmp_path / "shape.pt")
    torch.save({"conv": torch.zeros(4, 3)}, tmp_path / "names.pt")
    torch.save({"accuracy": 0.5}, tmp_path / "none.pt")
    torch.save({"weight": torch.zeros(3, 2), "bias": torch.zeros(())}, tmp_path / "scalar.pt")
    torch.save({"weight": torch.zeros(2, 3, dtype=torch.int64), "bias": torch.zeros(2)}, tmp_path / "whole.pt2")
    torch.save({"weight": torch.zeros(2, 3).to_sparse(), "bias": torch.zeros(2)}, tmp_path / "sparse.pt")
    torch.save({"weight": torch.zeros(2, 3) * 1j, "bias": torch.zeros(2)}, tmp_path / "complex.pt")
    torch.save({"weight": torch.zeros(2, 3, device="meta"), "bias": torch.zeros(2)}, tmp_path / "meta.pt")
    words = {
        "whole.pt": "Python objects",
        "text.pt": "no file of torch.save",
        "empty.pt": "no file of torch.save",
        "nan.pt": "NaN or infinite",
        "shape.pt": r"shape \[4, 3\] instead of \[2, 3\]",
        "names.pt": "2 tensors are missing",
        "none.pt": "no state dict",
        "scalar.pt": "Check the number of classes",
        "whole.pt2": "'weight' is of type int64",
        "sparse.pt": "'weight' is a tensor of the layout sparse_coo.*: save dense tensors",
        "complex.pt": "'weight' is complex",
        "meta.pt": "'weight' is a tensor without data.*: save dense tensors",
        "absent.pt": "There is no weights file",
    }
    for name, sentence in words.items():
        with pytest.raises(BenchError, match=sentence):
            load_weights(nn.Linear(3, 2), tmp_path / name)


def test_a_module_of_a_file_is_built_and_gets_its_weights(tmp_path: Path) -> None:
    code = tmp_path / "theirs.py"
    code.write_text(
        "from __future__ import annotations\nfrom dataclasses import dataclass\nfrom torch import nn\n"
        "@dataclass\nclass Size:\n    width: int\n"
        "def build(width=2):\n    return nn.Linear(Size(width).width, 1)\n"
        "def number():\n    return 3\n"
    )
    own = nn.Linear(4, 1)
    torch.save({"state_dict": own.state_dict()}, tmp_path / "w.pt")
    module = module_from_file(f"{code}:build", tmp_path / "w.pt", width=4)
    assert torch.equal(module.weight, own.weight)
    assert not module.training
    (tmp_path / "broken.py").write_text("import nothing_of_this_name\n")
    torch.save(own, tmp_path / "whole.pt")
    for source, weights, said in (
        ("theirs.py", None, "write FILE.py:NAME"),
        (f"{code}:buidl", None, "did you mean 'build'"),
        (f"{tmp_path / 'none.py'}:build", None, "There is no file"),
        (f"{tmp_path / 'broken.py'}:build", None, "cannot be imported: ModuleNotFoundError"),
        (f"{code}:number", None, "is int, no torch module"),
        (f"{code}:build", tmp_path / "w.pt", "has shape"),
        (f"{code}:build", tmp_path / "whole.pt", "holds Python objects"),
        (f"{code}:build", tmp_path / "none.pt", "There is no weights file"),
    ):
        with pytest.raises(BenchError, match=said):
            module_from_file(source, weights)
    with pytest.raises(PluginError, match="cannot be built: TypeError"):
        module_from_file(f"{code}:build", depth=3)
