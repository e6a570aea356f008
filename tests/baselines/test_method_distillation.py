"""Distillation of any method: what teaches, what is shared with the teacher's own entry, and what is refused."""

from __future__ import annotations

import pytest
import torch

from benchmarks.suite.load import load_suite, with_methods
from benchmarks.suite.plan import DataFacts, build_plan
from dbn_core.data.batch import make_batch
from dbn_core.errors import SpecError
from dbn_core.methods.context import FitContext
from dbn_core.methods.registry import canonical, parse_method
from dbn_core.nets import NetworkSpec
from dbn_core.rng import generator
from tests.support.fitting import CPU, RECIPE_PLAIN, context, data, fit, images, predictor, trained

FACTS = DataFacts(
    "data", "Data", 1, (8, 8), tuple("abcdefghij"), {"train": 100, "validation": 100, "test": 100}, "unseen"
)
CYCLES = "cycles[cycle_epochs=1,cycles=2]"


def test_a_teacher_keeps_its_options_in_every_form() -> None:
    spec = f"distil[tau=1.0,teacher={CYCLES}]"
    assert canonical(parse_method(spec)) == spec
    assert canonical(parse_method("distil[teacher=cycles[cycles=2,cycle_epochs=1],tau=1]")) == spec
    assert canonical(parse_method("distil", {"teacher": "cycles[cycles=8]"})) == "distil"
    assert parse_method(spec).teacher.config.cycles == 2


def test_the_teachers_are_those_of_their_own_entry() -> None:
    plan = build_plan(with_methods(load_suite("smoke"), [f"{CYCLES}@2", f"distil[teacher={CYCLES}]@2"]), FACTS)
    networks, student = (
        [node for node in plan.nodes.values() if node.kind == "part" and node.payload["part"] == name]
        for name in ("networks", "distilled")
    )
    assert len(networks) == plan.suite.repetitions == len(student)
    assert ("part", networks[0].key) in student[0].needs


def test_a_student_of_members_costs_and_learns_what_they_say(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.Tensor] = []
    members = [trained(position, "frn") for position in range(3)]

    def once(self: FitContext, module: torch.nn.Module, step: object, recipe: object, **rest: object) -> None:
        batch = make_batch(data().train, torch.arange(16), RECIPE_PLAIN, False, generator(seed=0), CPU)
        seen.append(step(batch))  # type: ignore[operator]
        target = torch.stack([member(batch.images) for member in members]).softmax(-1).mean(0)
        seen.append(torch.nn.functional.cross_entropy(module(batch.images), target))

    monkeypatch.setattr(FitContext, "train", once)
    contexts: list[FitContext] = []
    fit("distil[teacher=de,tau=1]", 3, contexts=contexts)
    assert seen[0].item() == pytest.approx(seen[1].item(), rel=1e-5)
    assert contexts[-1].teacher_passes == 3 * 16


@pytest.mark.parametrize(("teacher", "size"), [(CYCLES, 2), ("de-tta", 1), ("ed", 2), ("swag[epochs=1,samples=2]", 2)])
def test_students_of_several_methods_train_and_predict(teacher: str, size: int) -> None:
    spec = f"distil[teacher={teacher},start=source,epochs=1,lr_scale=0.1]"
    parts = fit(spec, size)
    assert list(parts)[-1] == "distilled"
    terms = predictor(spec, size, parts)(images())
    assert terms.shape == (1, 6, 4)
    source = dict(trained(0, "frn").state_dict())
    assert not torch.equal(parts["distilled"]["head.linear.weight"], source["head.linear.weight"])


def test_what_cannot_teach_is_refused_in_a_sentence() -> None:
    with pytest.raises(SpecError, match="'score-ensemble' does not predict classes"):
        parse_method("distil[teacher=score-ensemble]")
    with pytest.raises(SpecError, match="or is distilled itself"):
        parse_method("distil[teacher=distil]")
    with pytest.raises(SpecError, match="did you mean 'cycles'"):
        parse_method("distil[teacher=cycle]")
    with pytest.raises(SpecError, match="1 to cycles=2, not 3"):
        parse_method(f"distil[teacher={CYCLES}]").check_size(3)
    with pytest.raises(SpecError, match="BatchNorm"):
        parse_method("distil[teacher=mc-batchnorm]").check_network(NetworkSpec(name="resnet8", norm="frn"))
    assert context().teacher_passes == 0
