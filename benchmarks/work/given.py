"""Members that were trained elsewhere, read from their weights files and looked at before anything uses them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn

from dbn_core.data.dataset import Dataset
from dbn_core.errors import DataError
from dbn_core.methods.context import freeze
from dbn_core.metrics.scores import chance_accuracies
from dbn_core.nets.resnet import Normalise
from dbn_core.nets.weights import load_weights
from dbn_core.tasks.base import Task

# Constants with which training scripts normalise images: ImageNet's, CIFAR-10's, [-1, 1], and none.
_COMMON = {
    3: (
        ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
        ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    ),
    1: (((0.1307,), (0.3081,)), ((0.5,), (0.5,)), ((0.0,), (1.0,))),
}
# By how much other constants must raise the accuracy to be mentioned.
_CLEARLY_BETTER = 0.02


@dataclass(frozen=True)
class Found:
    """What is known of one weights file.

    Attributes:
        fits: whether it has the tensors of its network.
        accuracy: on validation, where it can be a member.
        problem: why it cannot, in a sentence; empty where it can.
    """

    file: str
    fits: bool = False
    accuracy: float = math.nan
    problem: str = ""


def new_network(task: Task, spec: Any, data: Dataset) -> nn.Module:
    """An untrained network of ``spec`` for ``data``."""
    return task.new_network(spec, data.channels, data.image_size, data.num_classes, data.mean, data.std)


def network_of_file(network: nn.Module, file: str, device: torch.device) -> nn.Module:
    """``network`` with the weights of a file, frozen, on the device; raises :class:`DataError` if they do not fit."""
    load_weights(getattr(network, "body", network), Path(file))
    return freeze(network.to(device).to(memory_format=torch.channels_last))


def check_accuracy(network: nn.Module, file: str, task: Task, data: Dataset, device: torch.device) -> float:
    """Accuracy of a member on validation.

    Raises:
        DataError: it is at chance, less than three standard errors above that of guessing, or below.
    """
    accuracy, _ = task.evaluate(network, data, device)
    low, high = chance_accuracies(len(data.validation), data.num_classes)
    if accuracy < high:
        raise DataError(
            f"{file}: the network is {'far below' if accuracy < low else 'at'} chance on validation (accuracy "
            f"{accuracy:.1%} on {len(data.validation)} images, {data.num_classes} classes): check the order of the "
            "classes, or the normalisation ([network] mean, std), then the input size and the channels."
        )
    return accuracy


def far_below(found: Sequence[Found], count: int) -> list[Found]:
    """Members that are less accurate than the median of the others by 5 % and by four standard errors.

    Args:
        count: of the validation images.
    """
    members = [each for each in found if not each.problem]
    far = []
    for each in members if len(members) > 1 else ():
        usual = median(other.accuracy for other in members if other is not each)
        if each.accuracy < usual - max(0.05, 4 * math.sqrt(usual * (1 - usual) / count)):
            far.append(each)
    return far


def look_at(files: Mapping[str, Any], task: Task, data: Dataset, device: torch.device) -> list[Found]:
    """Read and run every file as a member; a problem of one does not hide those of the others.

    Args:
        files: paths, and the network of each.
    """
    found, known = [], dict[str, str]()
    for file, spec in files.items():
        fits = False
        try:
            network = network_of_file(new_network(task, spec, data), file, device)
            fits = True
            same = known.setdefault(_digest(network), file)
            if same != file:
                raise DataError(f"{file} holds the same weights as {same}: give each member once.")
            found.append(Found(file, fits, check_accuracy(network, file, task, data, device)))
        except DataError as error:
            found.append(Found(file, fits, problem=str(error)))
    return found


def _digest(network: nn.Module) -> str:
    """Of all weights: two files may hold the same ones and differ in their bytes."""
    hasher = hashlib.sha256()
    for name, value in network.state_dict().items():
        hasher.update(name.encode())
        hasher.update(value.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return hasher.hexdigest()


def normalisation_hint(file: str, spec: Any, task: Task, data: Dataset, device: torch.device) -> str:
    """A sentence where common constants make a member clearly more accurate than those of ``spec``; else nothing."""
    network: Any = new_network(task, spec, data)
    if not isinstance(getattr(network, "normalise", None), Normalise):
        return ""
    network = network_of_file(network, file, device)
    best = now = task.evaluate(network, data, device)[0]
    hint = ""
    for mean, std in _COMMON.get(data.channels, ()):
        network.normalise = Normalise(mean, std).to(device)
        accuracy, _ = task.evaluate(network, data, device)
        if accuracy > max(best, now + _CLEARLY_BETTER, chance_accuracies(len(data.validation), data.num_classes)[1]):
            best = accuracy
            hint = (
                f"{file} has an accuracy of {accuracy:.1%} instead of {now:.1%} with the mean {list(mean)} and the "
                f"std {list(std)}: if its images were normalised so, set [network] mean and std."
            )
    return hint
