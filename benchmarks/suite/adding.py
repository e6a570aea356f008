"""Methods that join a suite for one run (``--add``), without a change of its file.  Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Sequence

from benchmarks.suite.schema import MethodEntry, Suite
from dbn_core.errors import SpecError
from dbn_core.methods.registry import canonical, parse_method


def with_methods(suite: Suite, added: Sequence[str]) -> Suite:
    """The suite with further methods and sizes; what it has keeps its labels, and so its rows.

    Args:
        added: ``METHOD@SIZE``, the method as a spec with its options, for example ``ed[lr_scale=1]@3``.

    Raises:
        SpecError: not of this form, or no such method.
    """
    if not added:
        return suite
    entries = [entry.model_copy(update={"label": label}) for entry, _, label in suite.entries()]
    known = {
        canonical(method): index
        for index, (entry, method, _) in enumerate(suite.entries())
        if suite.teachers(entry) == suite.students.teachers
    }
    for text in added:
        match = re.fullmatch(r"(.+)@([1-9]\d{0,2})", text.strip())
        if not match:
            raise SpecError(f"--add {text}: write METHOD@SIZE, for example 'ed@3' or 'ed[lr_scale=1]@3'.")
        use, size = match[1], int(match[2])
        index = known.setdefault(canonical(parse_method(use)), len(entries))
        if index == len(entries):
            entries.append(MethodEntry(use=use, sizes=(size,)))
        elif size not in entries[index].sizes:
            entries[index] = entries[index].model_copy(update={"sizes": (*entries[index].sizes, size)})
    return suite.model_copy(update={"methods": tuple(entries)})
