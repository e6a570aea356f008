"""`run --lite`: a suite cut down to one repetition and at most a tenth of the students' budget, to try a method.

Imports no torch.  What does not depend on the budget keeps its key: members, and predictions of deep ensembles, are
those of the full suite, stored or released.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, get_args

from pydantic.fields import FieldInfo

from benchmarks.suite.load import added_method
from benchmarks.suite.schema import Suite
from benchmarks.suite.specs import MethodEntry, view_count
from dbn_core.errors import SpecError
from dbn_core.methods.method import Method
from dbn_core.methods.registry import canonical, parse_method

SHARE = 10  # of the budget, one part is spent
MOST_IMAGES = 50_000  # that a training sees, if one epoch is not more: minutes of a processor for a small network
TRUST = (
    "Lite: one repetition, at most a tenth of the budget: this shows that everything works, not how good it is. "
    "Nothing is ranked."
)


def lite_suite(suite: Suite, added: Sequence[str], images: int, all_sizes: bool = True) -> Suite:
    """The suite with its reference and the added methods alone, under a name of its own.

    Epochs, and views of teachers, are a tenth of what the suite or the method's options say, one at least, and epochs
    no more than 50,000 images have.  An option counts as a number of epochs if it is an integer named ``epochs`` or
    ``..._epochs``.

    Args:
        added: ``METHOD@SIZE``, as for :func:`benchmarks.suite.load.with_methods`.
        images: how many the training split has.
        all_sizes: whether the deep ensembles have all sizes of the suite, or none larger than the added methods.

    Raises:
        SpecError: nothing is added, an added method does not exist, or the suite does not classify.
    """
    if not added:
        raise SpecError("--lite tries a method that is added: give --add METHOD@SIZE.")
    if suite.task.name != "classification":
        raise SpecError(f"--lite is for suites that classify, and '{suite.name}' is about {suite.task.name}: drop it.")
    most = max(1, MOST_IMAGES // max(1, images))  # epochs
    students: dict[str, Any] = {
        "epochs": min(_tenth(suite.students.epochs), most),
        "teachers": _fewer_views(suite.students.teachers),
    }
    sizes: dict[str, list[int]] = {}
    for text in added:
        use, size = added_method(text)
        sizes.setdefault(canonical(_shortened(parse_method(use), students["epochs"], most)), []).append(size)
    largest = max(size for each in sizes.values() for size in each)
    entries = []
    for entry, method, label in suite.entries():
        if method.name == suite.task.reference:
            kept = [size for size in entry.sizes if all_sizes or size <= max(largest, min(entry.sizes))]
            entries.append(entry.model_copy(update={"sizes": tuple(kept), "label": label}))
    titles = [parse_method(spec).title for spec in sizes]
    for spec, each in sizes.items():
        method = parse_method(spec)
        name = method.title if titles.count(method.title) == 1 else spec.replace(method.name, method.title, 1)
        entries.append(MethodEntry(use=spec, sizes=tuple(dict.fromkeys(each)), label=f"{name} (lite)"))
    return suite.model_copy(
        update={
            "name": f"{suite.name}-lite",
            "title": f"{suite.title} (lite)",
            "description": f"{TRUST} {suite.description}".strip(),
            "repetitions": 1,
            "students": suite.students.model_copy(update=students),
            "shift": None,
            "published": None,
            "methods": tuple(entries),
        }
    )


def _tenth(number: int) -> int:
    return max(1, number // SHARE)


def _fewer_views(teachers: str) -> str:
    """``views(12)`` as ``views(1)``; online teachers stay online."""
    count = view_count(teachers)
    return teachers if count is None else re.sub(r"\d+", str(_tenth(count)), teachers, count=1)


# Options that may stay open: `epochs` follows the suite, and without the other no weights are averaged.
_OPEN = ("epochs", "averaged_epochs")


def _shortened(method: Method, epochs: int, most: int) -> Method:
    """The method with a tenth of its own numbers of epochs; those that it leaves open are ``epochs``, the students'."""
    changes: dict[str, Any] = {}
    for name, field in type(method.config).model_fields.items():
        if name != "epochs" and not name.endswith("_epochs"):
            continue
        said = getattr(method.config, name)
        if isinstance(said, int) and said:
            changes[name] = max(min(_tenth(said), most), _least(field))
        elif isinstance(said, float):  # of a warm-up, for example
            changes[name] = said / SHARE
        elif name not in _OPEN and said is None and int in get_args(field.annotation):
            changes[name] = max(epochs, _least(field))
    return parse_method(method.name, method.config.spec_options() | changes)


def _least(field: FieldInfo) -> int:
    """The smallest number of epochs that an option takes."""
    bounds = (getattr(rule, "ge", None) for rule in field.metadata)
    return max([1, *(int(bound) for bound in bounds if bound is not None)])
