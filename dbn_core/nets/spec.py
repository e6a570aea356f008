"""What a network is, as a suite file says it.  Imports no torch."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, FiniteFloat, field_validator, model_validator

from dbn_core.errors import DataError, SpecError, UnknownNameError, did_you_mean
from dbn_core.nets.plugins import BUILT_IN, NETWORKS, source_sha256
from dbn_core.options import KeyedOptions

KNOWN = (
    "write resnet34, or resnet8, resnet14, resnet20 ... (6n+2), wrn16-4, wrn28-10 ... (wrnDEPTH-WIDTH, depth 6n+4), "
    "timm:NAME or torchvision:NAME"
)
_CIFAR = re.compile(r"resnet([0-9]{1,4})")
_WIDEST = 100_000  # channels of a stage
_Whole = Annotated[int, Field(ge=-(10**9), le=10**9)]  # a library may build as many layers as it is told
_WIDE = re.compile(r"wrn([0-9]{1,4})-([1-9][0-9]{0,2})")


class NetworkOptions(KeyedOptions):
    """What every kind of ``[network]`` has."""

    splits: ClassVar[bool] = False  # whether it is a chain of blocks that can be cut in two

    def feature_channels(self, at: str) -> int | None:
        """Channels of the features at node ``at``; None where only the network itself can tell."""
        return None

    @property
    def label(self) -> str:
        """Short name for tables."""
        return type(self).__name__


class NetworkSpec(NetworkOptions):
    """Family, width and normalisation of a classifier.

    Stage s has ``channels * width * 2**s`` channels; the stem keeps ``channels``.

    Attributes:
        name: ``resnet8``, ``resnet14``, ``resnet20``, ``resnet32`` ... (6n+2, three stages), ``resnet34`` (four
            stages), or ``wrn28-10``: the wide residual network of depth 28 (6n+4, three stages) and width 10, with
            pre-activation, BatchNorm and no bias (Zagoruyko and Komodakis, 2016, arXiv 1605.07146).
        width: factor of the channels of all stages, not of the stem.
        channels: of the stem.
        norm: ``frn`` is filter response normalisation with swish, ``batchnorm`` BatchNorm with ReLU.
        bias: whether convolutions have one.
        stem: ``3x3/2`` halves the image at once, for a network of four times the channels at the same cost; ``7x7``
            halves it and pools to a quarter.
        preactivation: whether norm and activation come before each convolution (He et al., 2016, arXiv 1603.05027).
    """

    splits: ClassVar[bool] = True

    name: str = "resnet32"
    width: float = Field(2.0, gt=0, le=1000)
    channels: int = Field(16, ge=1, le=100_000)
    norm: Literal["frn", "batchnorm"] = "frn"
    bias: bool = True
    stem: Literal["3x3", "3x3/2", "7x7"] = "3x3"
    preactivation: bool = False

    @model_validator(mode="before")
    @classmethod
    def _wide_network(cls, values: Any) -> Any:
        """A wide network's name says its width and its form; norm and bias are the paper's unless given."""
        wide = _WIDE.fullmatch(str(values.get("name"))) if isinstance(values, Mapping) else None
        if not wide:
            return values
        said = {"width": float(wide[2]), "preactivation": True}
        for name, value in said.items():
            if values.get(name, value) != value:
                raise ValueError(f"the name '{values['name']}' says {name} = {str(value).lower()}: remove {name}")
        return {"norm": "batchnorm", "bias": False, **values, **said}

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        narrow, wide = _CIFAR.fullmatch(name), _WIDE.fullmatch(name)
        depth = int(narrow[1]) - 2 if narrow else int(wide[1]) - 4 if wide else 0
        if name != "resnet34" and (depth < 6 or depth % 6):
            raise ValueError(f"unknown network '{name}'{_elsewhere(name)}: {KNOWN}")
        return name

    @model_validator(mode="after")
    def _fits_a_memory(self) -> NetworkSpec:
        widest = self.channels * self.width * 2 ** (len(self.stages) - 1)
        if widest > _WIDEST:
            raise ValueError(f"channels and width make {widest:,.0f} channels in the last stage: lower one of them")
        return self

    @property
    def stages(self) -> tuple[int, ...]:
        """Number of residual blocks in each stage."""
        if self.name == "resnet34":
            return (3, 4, 6, 3)
        if wide := _WIDE.fullmatch(self.name):
            return ((int(wide[1]) - 4) // 6,) * 3
        return (((int(self.name.removeprefix("resnet")) - 2) // 6),) * 3

    def scaled(self, width: float) -> NetworkSpec:
        """The same network with the channels of the stem and of every stage multiplied by ``width``."""
        return self.model_copy(update={"channels": max(1, round(self.channels * width))})

    def feature_channels(self, at: str) -> int:
        """Channels after block ``at``; raises :class:`SpecError` when there is no such block."""
        plan = block_plan(self)
        index = block_index(at, len(plan))
        return plan[index - 1][0] if index else self.channels

    @property
    def label(self) -> str:
        """Short name for tables, for example ``ResNet-32 (FRN-Swish, stem 16, width x2)``."""
        norm = {"frn": "FRN-Swish", "batchnorm": "BN-ReLU"}[self.norm]
        if _WIDE.fullmatch(self.name):
            return f"{self.name.replace('wrn', 'WRN-')} ({norm}, stem {self.channels})"
        form = "Pre-activation ResNet" if self.preactivation else "ResNet"
        return f"{form}-{self.name.removeprefix('resnet')} ({norm}, stem {self.channels}, width x{self.width:g})"


def block_plan(spec: NetworkSpec) -> list[tuple[int, int]]:
    """(channels, stride) of each residual block, in order."""
    plan = []
    for stage, count in enumerate(spec.stages):
        channels = max(1, round(spec.channels * spec.width)) * 2**stage
        plan += [(channels, 2 if stage and not block else 1) for block in range(count)]
    return plan


def block_index(name: str, last: int) -> int:
    """Index of ``block7``; raises :class:`SpecError` outside ``block0`` ... ``block<last>``."""
    digits = name.removeprefix("block")
    if not name.startswith("block") or not digits.isdecimal() or int(digits) > last:
        raise SpecError(f"The network has no '{name}': choose block0 (the stem) to block{last}.")
    return int(digits)


class ModuleSpec(NetworkOptions):
    """A network of timm, of torchvision or of a plugin.

    Attributes:
        name: ``timm:NAME``, ``torchvision:NAME``, or the name that a plugin registered.
        options: for its constructor.
        weights: file of weights to start from (safetensors, or a state dict of ``torch.save``); nothing is downloaded.
        input_size: side in pixels to which images are resized inside the network; None: as they are.
        mean, std: normalisation; None: those of the data.
    """

    name: str
    options: dict[str, bool | _Whole | FiniteFloat | str | list[_Whole] | list[FiniteFloat]] = Field({})
    weights: Path | None = None
    input_size: Annotated[int, Field(ge=1, le=4096)] | None = None
    mean: tuple[FiniteFloat, ...] | None = None
    std: tuple[Annotated[FiniteFloat, Field(gt=0)], ...] | None = None

    @property
    def label(self) -> str:
        """The name with its options, and the input size where images are resized."""
        options = ",".join(f"{name}={value}" for name, value in self.options.items())
        name = f"{self.name}[{options}]" if options else self.name
        return name + (f" at {self.input_size} pixels" if self.input_size else "")

    def key(self, include: Collection[str] | None = None, exclude: Collection[str] = ()) -> dict[str, Any]:
        """Options that differ from their defaults, and the SHA-256 of the weights file and of a plugin's code.

        Raises:
            DataError: the weights file cannot be read.
        """
        values = super().key(include, {"weights", *exclude})
        if ":" not in self.name:
            values["source"] = source_sha256(self.name)
        if self.weights is None:
            return values
        try:
            return values | {"weights": hashlib.sha256(self.weights.expanduser().read_bytes()).hexdigest()}
        except OSError as error:
            raise DataError(f"The weights file {self.weights} cannot be read: set [network] weights to it.") from error

    def scaled(self, width: float) -> ModuleSpec:
        """This network; raises :class:`SpecError` for another width, which built-in networks alone have."""
        if width != 1:
            raise SpecError(f"'{self.name}' has one width: give students the members' width, or use a ResNet.")
        return self


def _elsewhere(name: str) -> str:
    """`` (did you mean 'torchvision:resnet18'?)`` if an installed library has a network of this name."""
    with suppress(ImportError):
        import torchvision.models

        if name in torchvision.models.list_models(module=torchvision.models):
            return f" (did you mean 'torchvision:{name}'?)"
        import timm

        if timm.is_model(name):
            return f" (did you mean 'timm:{name}'?)"
    return ""


def classifier_spec(given: Mapping[str, Any]) -> NetworkSpec | ModuleSpec:
    """The options of ``[network]`` in a suite of classification, by its name."""
    name = str(given.get("name", "resnet32"))
    if name.startswith(("timm:", "torchvision:")) or name in NETWORKS:
        return ModuleSpec.model_validate(given)
    if not name.startswith(BUILT_IN):
        elsewhere = _elsewhere(name)
        plugin = "if a file of yours registers it, give --plugin FILE, to this command as to the run; else "
        known = elsewhere + ": " if elsewhere else f"{did_you_mean(name, NETWORKS)}: {plugin}"
        raise UnknownNameError(f"unknown network '{name}'{known}{KNOWN}.")
    return NetworkSpec.model_validate(given)


def near_key(name: str, key: str) -> str:
    """Which key may be meant by one that ``[network]`` of this name does not have, for error messages."""
    if name.startswith(BUILT_IN):
        return did_you_mean(key, NetworkSpec.model_fields)
    near = did_you_mean(key, ModuleSpec.model_fields)
    return near if "did you mean" in near else f" (did you mean 'options.{key}', an option of the network itself?)"
