"""How keys are computed: the key of an artefact is the hash of its kind and its recipe.

A recipe is JSON that states all that the artefact depends on: the data by fingerprint, the artefacts that it reads by
their keys, seeds, and options.

One rule keeps keys stable while the code grows: a recipe holds options without those that equal their defaults
(:meth:`dbn_core.options.KeyedOptions.key`).  A new option whose default changes no result therefore changes no key.
Every other change of what recipes state, or of what an unchanged recipe gives, raises :data:`FORMAT`; a change that
concerns one method raises its ``version``.
"""

from __future__ import annotations

from typing import Any

from benchmarks.suite.facts import DataFacts
from benchmarks.suite.schema import Suite
from dbn_core.methods.method import Method, Part

FORMAT = 2
# The fields of a training recipe on which stored views depend, and the teachers' logits on them.
_OF_VIEWS = ("crop_pad", "flip", "mixup", "cutmix", "precision")


def base_recipe(suite: Suite, data: DataFacts, repetition: int) -> dict[str, Any]:
    """What the recipes of members, parts and predictions share."""
    return {
        "format": FORMAT,
        "task": suite.task.key(),
        "data": data.fingerprint,
        "split": repetition if suite.data.resplits else 0,
        "network": suite.network.key(),
        "recipe": suite.recipe.key(),
        "seed": suite.seed,
    }


def member_recipe(suite: Suite, data: DataFacts, repetition: int, pool: int, index: int) -> dict[str, Any]:
    """Recipe of member ``index`` of a pool."""
    own = {"network": suite.network_of(index).key(), "pool": pool, "index": index}
    return base_recipe(suite, data, repetition) | own | suite.pool.key(include={"weights"})


def part_recipe(
    suite: Suite, data: DataFacts, repetition: int, method: Method, part: Part, precision: str
) -> dict[str, Any]:
    """Recipe of a part, without the artefacts that it reads."""
    owner = part.owner or method
    return base_recipe(suite, data, repetition) | {
        "recipe": suite.recipe.replace(precision=precision).key(),
        "method": owner.name,
        "version": owner.version,
        "part": part.name,
        "settings": method.config.key() if part.settings is None else dict(part.settings),
        "student_epochs": suite.students.epochs,
        "repetition": repetition,
    }


def views_recipe(
    suite: Suite, data: DataFacts, repetition: int, part: Part, precision: str, count: int, unseen: str | None
) -> dict[str, Any]:
    """Recipe of the logits of a teacher of a part on ``count`` views, without the teacher."""
    recipe = part.teacher_recipe(suite.recipe).replace(precision=precision)  # teachers compute as if they ran online
    return {
        "format": FORMAT,
        "data": data.fingerprint,
        "split": repetition if suite.data.resplits else 0,
        "seed": suite.seed,
        "count": count,
        "recipe": recipe.key(include=_OF_VIEWS),
        **({"unseen": unseen} if unseen else {}),
    }


def prediction_recipe(
    suite: Suite, data: DataFacts, repetition: int, method: Method, payload: dict[str, Any]
) -> dict[str, Any]:
    """Recipe of the predictions of a predictor, whose size, members and parts ``payload`` has."""
    recipe = base_recipe(suite, data, repetition) | {
        "method": method.name,
        "version": method.version,
        "config": method.config.key(),
        **{name: payload[name] for name in ("size", "members", "parts")},
        **suite.key(include={"predictions"}),
    }
    return recipe | ({"repetition": repetition} if suite.task.draws_predictions else {})


def cost_recipe(suite: Suite, data: DataFacts, method: Method, size: int) -> dict[str, Any]:
    """Recipe of a predictor's cost, which does not depend on weights."""
    recipe = {
        "format": FORMAT,
        "task": suite.task.key(),
        "method": method.name,
        "version": method.version,
        "config": method.config.key(),
        "size": size,
        "network": suite.network.key(),
        "image": [data.channels, *data.image_size],
        "classes": len(data.classes),
    }
    # A cost that the method states may depend on the data.
    return recipe | ({"data": data.fingerprint} if type(method).cost is not Method.cost else {})
