"""Networks of other libraries and of plugins as classifiers of this suite.

``timm:NAME`` and ``torchvision:NAME`` are built by their libraries, a plugin's by the class or function that
``@register_network`` marks.  Each takes normalised images and gives logits; :class:`ModuleNetwork` adds what suites
need: normalisation, resizing, seeded weights, weights from a file, and features at any node.
"""

from __future__ import annotations

import copy
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dbn_core.errors import DataError, PluginError, SpecError, did_you_mean, reason, shown
from dbn_core.nets.network import HookTap, Network
from dbn_core.nets.plugins import NETWORKS
from dbn_core.nets.precision import full_precision
from dbn_core.nets.resnet import Normalise
from dbn_core.nets.spec import ModuleSpec
from dbn_core.nets.weights import load_weights, read_weights
from dbn_core.rng import seeded


class ModuleNetwork(Network):
    """A module of somebody else's as a classifier of images in [0, 1].

    Args:
        spec: name, options, weights, input size and normalisation.
        classes: K.
        channels: of the images.
        mean, std: per-channel constants of the data, used unless the spec has its own.

    Raises:
        SpecError: the library is not installed, has no such network, or the network does not take these images.
        PluginError: the network cannot be built.
    """

    def __init__(
        self, spec: ModuleSpec, classes: int, channels: int, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        super().__init__()
        self.spec: ModuleSpec = spec
        self.classes, self.channels = classes, channels
        self.normalise = Normalise(spec.mean or mean, spec.std or std)
        self.body = self._build()

    def _build(self) -> nn.Module:
        with torch.random.fork_rng(devices=[]):  # constructors draw weights from the global generator
            return self._construct()

    def _construct(self) -> nn.Module:
        library, _, name = self.spec.name.rpartition(":")
        if library == "timm":
            return _timm(name, self.classes, self.channels, self.spec.options)
        if library == "torchvision":
            return _torchvision(name, self.classes, self.channels, self.spec.options)
        return _plugin(self.spec.name, self.classes, self.channels, self.spec.options)

    def reset(self, generator: torch.Generator) -> None:
        """Weights as the library initialises them, drawn from the generator; then those of the weights file, if any.

        A layer of the file whose shape differs from the network's (the classifier of other classes) keeps its draw.
        """
        draw = int(torch.randint(2**62, (), generator=generator))
        with seeded(torch.device("cpu"), purpose="network", draw=draw):
            state = self._construct().state_dict()
        if self.spec.weights:
            given = read_weights(self.spec.weights)
            fitting = {name: value for name, value in given.items() if name in state and _alike(value, state[name])}
            if len(fitting) < len(state) / 2:
                raise DataError(
                    f"{self.spec.weights} fits {len(fitting)} of the {len(state)} tensors of {self.spec.name}: give "
                    "weights of this network."
                )
            state |= fitting
        self.body.load_state_dict(state)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images, float [B, C, H, W] in [0, 1], to logits [B, K] in float32."""
        x = self.normalise(images)
        if self.spec.input_size and self.spec.input_size != x.shape[-1]:
            size = (self.spec.input_size, self.spec.input_size)
            x = nn.functional.interpolate(x, size, mode="bilinear", align_corners=False)
        if self.channels == 1 and self.spec.name.startswith("torchvision:"):  # whose networks take three channels
            x = x.expand(-1, 3, -1, -1)
        logits = self.body(x)
        if not isinstance(logits, torch.Tensor) or logits.shape[1:] != (self.classes,):
            what = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
            raise SpecError(f"Network '{self.spec.name}' returns {what}: return logits [B, {self.classes}].")
        return full_precision(logits)

    def tap(self, at: str) -> HookTap:
        """Features at the submodule ``at`` of the library's network, and logits."""
        return HookTap(self, at, within="body")

    def last_layer(self) -> tuple[nn.Module, nn.Linear]:
        """A network of the same modules with the last linear layer of K outputs left out, and that layer."""
        linears = {name: module for name, module in self.body.named_modules() if isinstance(module, nn.Linear)}
        path = next((name for name in reversed(linears) if linears[name].out_features == self.classes), None)
        if not path:
            raise SpecError(
                f"The network has no linear layer of {self.classes} outputs: choose another network, or remove the "
                "method."
            )
        features = copy.copy(self)
        features._modules = {**self._modules, "body": _without(self.body, path)}
        features.classes = linears[path].in_features
        return features, linears[path]


def module_from_file(source: str, weights: Path | None = None, **options: Any) -> nn.Module:
    """A module that a Python file builds, with weights from a file, in evaluation mode.  The file's code is run.

    Args:
        source: ``FILE.py:NAME``, where NAME is a class or function of the file that gives a torch module.
        weights: see :func:`~dbn_core.nets.weights.load_weights`; None: as it is built.
        options: for NAME.

    Raises:
        SpecError: the source has another form, or its file no such name.
        PluginError: the file is missing or fails, or what NAME gives is no module.
        DataError: the weights do not fit.
    """
    path, _, name = source.rpartition(":")
    if not path.endswith(".py") or not name:
        raise SpecError(f"The module {shown(source)} is malformed: write FILE.py:NAME of a class or function.")
    file = Path(path).expanduser().resolve()
    if not file.is_file():
        raise PluginError(f"There is no file {path}: check the path of the module's code.")
    spec = importlib.util.spec_from_file_location(f"dbn_module_{file.stem}", file)
    assert spec is not None, "the name of the file ends in .py"
    assert spec.loader is not None, "it is a file"
    code = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = code  # where dataclasses look for their annotations
    try:
        spec.loader.exec_module(code)
    except Exception as error:
        raise PluginError(f"{path} cannot be imported: {type(error).__name__}: {reason(error)}.") from error
    if not callable(getattr(code, name, None)):
        names = [known for known, value in vars(code).items() if callable(value) and value.__module__ == spec.name]
        raise SpecError(f"{path} has no class or function '{name}'{did_you_mean(name, names)}.")
    module = _made(source, lambda: getattr(code, name)(**options))
    if weights is not None:
        load_weights(module, weights)
    return module.eval()


def _alike(given: torch.Tensor, own: torch.Tensor) -> bool:
    return given.shape == own.shape and given.is_floating_point() == own.is_floating_point()


def _without(module: nn.Module, path: str) -> nn.Module:
    """The same module, but for the submodule at ``path``, which passes on its input; all other modules are shared."""
    first, _, rest = path.partition(".")
    child, other = module.get_submodule(first), copy.copy(module)
    other._modules = {**module._modules, first: _without(child, rest) if rest else nn.Identity()}
    return other


def check_name(name: str) -> None:
    """Raise :class:`SpecError` for ``timm:NAME`` or ``torchvision:NAME`` where the library has no such network."""
    library, _, short = name.rpartition(":")
    if library == "torchvision":
        import torchvision.models

        names = torchvision.models.list_models(module=torchvision.models)
        if short not in names:
            raise SpecError(f"torchvision has no classifier '{short}'{did_you_mean(short, names)}.")
    if library == "timm":
        try:
            import timm
        except ModuleNotFoundError as error:
            raise SpecError(f"The network '{name}' needs the package timm: pip install timm.") from error
        if not timm.is_model(short):
            raise SpecError(f"timm has no network '{short}'{did_you_mean(short, timm.list_models())}.")


def _timm(name: str, classes: int, channels: int, options: Mapping[str, Any]) -> nn.Module:
    check_name(f"timm:{name}")
    import timm

    return _made(
        f"timm:{name}",
        lambda: timm.create_model(name, pretrained=False, num_classes=classes, in_chans=channels, **options),
    )


def _torchvision(name: str, classes: int, channels: int, options: Mapping[str, Any]) -> nn.Module:
    from torchvision.models import get_model

    if channels not in (1, 3):
        raise SpecError(f"torchvision's networks take images of 1 or 3 channels, not {channels}: use one of timm.")
    check_name(f"torchvision:{name}")
    if name in ("googlenet", "inception_v3"):  # whose auxiliary classifiers would change what they return
        options = {"aux_logits": False, "init_weights": True, **options}
    return _made(f"torchvision:{name}", lambda: get_model(name, weights=None, num_classes=classes, **options))


def _plugin(name: str, classes: int, channels: int, options: Mapping[str, Any]) -> nn.Module:
    if name not in NETWORKS:
        raise SpecError(f"Unknown network '{name}'{did_you_mean(name, NETWORKS)}. A file of your own: --plugin FILE.")
    build: Any = NETWORKS[name]
    known, open_ended = _options(build, 2)
    for option in options:
        if option not in known and not open_ended:
            raise _no_option(name, option, known)
    return _made(name, lambda: build(classes, channels, **options))


def _options(build: Any, given: int) -> tuple[list[str], bool]:
    """Names of a builder's arguments after the first ``given``, and whether it takes others as well."""
    parameters = list(inspect.signature(build).parameters.values())
    several = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    names = [p.name for p in parameters[given:] if p.kind not in several]
    return names, any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters)


def _no_option(name: str, option: str, known: Sequence[str]) -> SpecError:
    return SpecError(f"The network '{name}' has no option '{option}'{did_you_mean(option, known)}.")


def _refused_option(name: str, error: TypeError) -> SpecError | None:
    """The sentence for a keyword that a library's constructor does not take; None for any other error."""
    match = re.fullmatch(r"(?:(\w+)\.__init__|(\w+))\(\) got an unexpected keyword argument '(\w+)'.*", str(error))
    trace, build = error.__traceback__, None
    while match and trace and build is None:  # a frame of the library knows the class or function of the message
        build, trace = trace.tb_frame.f_globals.get(match[1] or match[2]), trace.tb_next
    return _no_option(name, match[3], _options(build, 0)[0]) if match and callable(build) else None


def _made(name: str, build: Callable[[], Any]) -> nn.Module:
    try:
        module = build()
        if isinstance(module, nn.Module):
            module.state_dict()  # fails where nn.Module.__init__ was not called
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # also SystemExit, which a plugin may raise
        if isinstance(error, TypeError) and (refused := _refused_option(name, error)):
            raise refused from error
        raise PluginError(f"Network '{name}' cannot be built: {type(error).__name__}: {reason(error)}.") from error
    if not isinstance(module, nn.Module):
        raise PluginError(f"Network '{name}' is {type(module).__name__}, no torch module: return one.")
    return module
