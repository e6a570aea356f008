"""The suite file that `dbn-bench new` writes: what is in it, and its text with comments.  Imports no torch."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dbn_core.nets.spec import ModuleSpec, classifier_spec

if TYPE_CHECKING:
    from dbn_core.data.dataset import Dataset

# Logits of a member on stored views take at most this many bytes; beyond it, teachers run online.
_VIEWS_BYTES = 1e9
_VIEWS = 12
_WIDTH = 100  # of a line with its comment
_RATE = 0.1  # of the members' recipe
_START_RATE, _START_BATCH = 0.05, 256  # at which students that start from the source were best on CIFAR-10


@dataclass(frozen=True)
class Choices:
    """What the user said.

    Attributes:
        name: of the suite.
        network: as ``[network] name`` has it.
        data: ``[data]``, with its source.
        members: of the pool.
        students: epochs of each student.
        files: weights files or patterns, a table with the network where it is another; none where the suite trains the
            members.
        header: lines at the top of the file.
    """

    name: str
    network: str
    data: Mapping[str, Any]
    members: int
    students: int
    files: tuple[str | Mapping[str, str], ...] = ()
    header: tuple[str, ...] = ()


def draft(choices: Choices, data: Dataset | None = None) -> dict[str, Any]:
    """The content of the suite file.

    The students' options are those that were best on CIFAR-10 (docs/findings.md).

    Args:
        data: what ``[data]`` reads, which crops, batches and teachers depend on; None: a draft that is only checked.
    """
    given, largest = bool(choices.files), choices.members
    network: dict[str, Any] = {"name": choices.network}
    if given and data and isinstance(classifier_spec(network), ModuleSpec):
        network |= {"mean": list(data.mean), "std": list(data.std)}
    batch = _batch(len(data.train)) if data else 128
    student: dict[str, Any] = {"tau": 1.0, "mixup": 1.0}
    if not given or any(isinstance(file, str) for file in choices.files):  # a member has the student's network
        student |= {"start": "source", "lr_scale": round(_START_RATE * batch / _START_BATCH / _RATE, 6)}
    return {
        "title": choices.name,
        "repetitions": 3,
        "data": dict(choices.data),
        "network": network,
        "pool": {"checkpoints": list(choices.files)} if given else {"members": largest, "sharing": "shared"},
        "recipe": {
            "epochs": choices.students,
            "batch_size": batch,
            "optimizer": "sgd",
            "lr": _RATE,
            "weight_decay": 5e-4,
            "crop_pad": min(data.image_size) // 8 if data else 4,
        },
        "students": {"epochs": choices.students, "teachers": _teachers(choices, data)},
        "latency": {"batch": 32, "repeats": 20, "batch_repeats": 5},
        "methods": [
            {"use": "de", "sizes": ensemble_sizes(largest)},
            {"use": "ts", "sizes": [1]},
            {"use": "ed", "label": "ED", "sizes": [largest], "options": student},
            {"use": "ed", "label": "Labels alone", "control": True, "sizes": [1], "options": student | {"alpha": 0.0}},
        ],
    }


def ensemble_sizes(members: int) -> list[int]:
    """Every size up to 8, then doubled ones, and all members."""
    doubled = (8 * 2**power for power in range(1, 8))
    return sorted({*range(1, min(members, 8) + 1), *(size for size in doubled if size < members), members})


def _batch(train: int) -> int:
    """A power of two from 8 to 128, and at least eight steps an epoch where there are as many images."""
    return max(8, min(128, 1 << (max(train // 8, 1)).bit_length() - 1))


def _teachers(choices: Choices, data: Dataset | None) -> str:
    """Stored views where they save passes of the teachers and their logits fit on a disk."""
    if data is None or choices.students <= _VIEWS:
        return "online"
    stored = 2 * _VIEWS * len(data.train) * data.num_classes
    return f"views({_VIEWS})" if stored < _VIEWS_BYTES else "online"


# Comments by table and key; those of a [[methods]] table by its position.
_COMMENTS = {
    "repetitions": "each trains its students anew, for intervals; 1 is quicker",
    "data": "test images must be new to the members; validation images too, if temperatures are to be honest",
    "network.mean": "the normalisation of the members' training: (image - mean) / std, image in [0, 1]",
    "pool.checkpoints": "the members; nothing is trained for them",
    "pool.members": "one pool, trained once",
    "pool.sharing": "each repetition draws another source and order of members from it",
    "recipe": "how members are trained; students start from it",
    "students": "the budget of each student",
    "students.teachers": "views(V): members run once, on V augmented copies; online: on every batch",
    "latency": "how prediction times are measured",
}
_GIVEN = {
    "network": "that of the students, and of members that name no other",
    "recipe": "how your members were trained, as far as students shall start from it: check every line",
    "recipe.epochs": "only counted as the members' cost",
}
_METHODS = (
    "the ensembles themselves",
    "one member with a fitted temperature: what calibration alone brings",
    "the student: taught by all members",
    "the same training without teachers (control)",
)


def suite_text(choices: Choices, content: Mapping[str, Any]) -> str:
    """The suite file: ``content`` as TOML, with comments."""
    comments = _COMMENTS | (_GIVEN if choices.files else {})
    methods: Sequence[Mapping[str, Any]] = content["methods"]
    notes = list(_METHODS)
    if any("start" in method.get("options", {}) for method in methods):
        notes[2] += f"; best on CIFAR-10: lr x lr_scale = {_START_RATE} x batch / {_START_BATCH} (SGD)"
    lines = [f"# {line if line.isprintable() else ascii(line)}" for line in choices.header]
    tables = {key: value for key, value in content.items() if isinstance(value, Mapping)}
    for key, value in content.items():
        if key not in tables and key != "methods":
            lines.append(_line(key, value, comments.get(key, "")))
    for name, table in tables.items():
        lines += ["", _with_comment(f"[{_key(name)}]", comments.get(name, ""))]
        lines += [_line(key, value, comments.get(f"{name}.{key}", "")) for key, value in table.items()]
    for index, method in enumerate(methods):
        lines += ["", _with_comment("[[methods]]", notes[index] if len(methods) == len(notes) else "")]
        lines += [_line(key, value) for key, value in method.items()]
    return "\n".join(lines) + "\n"


def _line(key: str, value: Any, comment: str = "") -> str:
    return _with_comment(f"{_key(key)} = {toml(value)}", comment)


def _with_comment(text: str, comment: str) -> str:
    """The comment behind the text, or above it where both are too long for a line."""
    if not comment:
        return text
    behind = f"{text.ljust(24)} # {comment}"
    return behind if len(behind) <= _WIDTH else f"# {comment}\n{text}"


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else json.dumps(key)


def toml(value: Any) -> str:
    """A value as TOML."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(key)} = {toml(inner)}" for key, inner in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, int | float):
        return repr(value)
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
