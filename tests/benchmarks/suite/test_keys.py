"""Keys of what is stored: a new option or field must not make results of earlier versions look unknown."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.suite.load import load_suite
from benchmarks.suite.plan import DataFacts, build_plan, permuted
from benchmarks.suite.schema import Suite
from benchmarks.suite.specs import MethodEntry
from dbn_core.rng import digest

FACTS = DataFacts("data", "Data", 3, (32, 32), tuple("abcdefghij"), {"train": 100, "validation": 10, "test": 10}, "new")
# Of suites whose results somebody may have stored, the number of artefacts and the digest of their sorted keys.  A line
# may change with the file of its suite, or when FORMAT or the version of a method is raised on purpose; else the stores
# of users would be worthless.
KEYS: dict[str, tuple[int, str]] = {
    "cifar10": (213, "13bd034e678ef57e"),
    "cifar10-small": (351, "ba6445b2e85f79dc"),
    "cifar10-small-views": (68, "236e3437d7c48d62"),
    "cifar10-steps": (89, "fb84ecd61c4de984"),
    "cifar100": (185, "788cc0577023a0bf"),
    "diabetes-forest": (72, "2acfca2042b06245"),
    "digits": (739, "2e35a94a31c5eff6"),
    "digits-branches": (1447, "d939970a2d95107a"),
    "digits-bridge": (3049, "545e65fd3f09fd8c"),
    "digits-capacity": (2399, "849be4076406d949"),
    "digits-convnext": (86, "b2b29b0772fe5100"),
    "digits-vit": (86, "10f1e5644cb549ec"),
    "digits-steps": (365, "ae9e844c78632873"),
    "digits-students": (434, "c0d768fcf2217218"),
    "digits-views": (170, "d6668cd3c9ca50a9"),
    "digits-diffusion": (315, "9dd17ad86c661d0c"),
    "imagenet64": (203, "fe88507c2e6addd0"),
    "iris-forest": (79, "91c7d1840ef8375d"),
    "mixture2d": (388, "5af4c6adc3738ea1"),
    "wine-forest": (83, "a6765bf035761be4"),
    "smoke": (45, "8dfa9f9b41198064"),
    "tinyimagenet": (185, "9c7857454e713fc0"),
}


def test_a_larger_pool_keeps_what_its_first_members_made() -> None:
    suite = load_suite("digits-branches")
    larger = load_suite("digits-branches", {"pool.members": suite.pool.members + 2})
    assert set(build_plan(suite, FACTS).nodes) == set(build_plan(larger, FACTS).nodes)


def test_a_field_that_is_given_its_default_changes_no_key() -> None:
    plain, same, other = (
        {node.key for node in build_plan(load_suite("smoke", changes), FACTS).nodes.values() if node.kind == "member"}
        for changes in ({}, {"recipe.cosine_length": 1.0}, {"recipe.cosine_length": 2.0})
    )
    assert same == plain
    assert not other & plain


def digits_with(repetitions: int | dict[int, int] | None) -> tuple[Suite, MethodEntry]:
    """Three repetitions of ``digits``, and its entry of ED with other ones."""
    suite = load_suite("digits", {"repetitions": 3})
    ed = next(index for index, entry in enumerate(suite.methods) if entry.use == "ed")
    entry = suite.methods[ed].model_copy(update={"repetitions": repetitions})
    return suite.model_copy(update={"methods": (*suite.methods[:ed], entry, *suite.methods[ed + 1 :])}), entry


def test_an_entry_of_fewer_repetitions_has_the_first_ones() -> None:
    suite, _ = digits_with(None)
    whole, part = build_plan(suite, FACTS), build_plan(digits_with(2)[0], FACTS)
    left_out = {cell.predictions for cell in whole.cells if cell.method.name == "ed" and cell.repetition == 2}
    assert left_out
    assert {cell.predictions for cell in part.cells} == {c.predictions for c in whole.cells} - left_out
    longer = digits_with(9)[1]
    assert suite.repetitions_of(longer, longer.sizes[0]) == 3


def test_sizes_of_an_entry_can_have_fewer_repetitions() -> None:
    suite, entry = digits_with(None)
    large = max(entry.sizes)
    whole, part = (
        [(cell.spec, cell.size, cell.repetition, cell.predictions) for cell in build_plan(one, FACTS).cells]
        for one in (suite, digits_with({large: 1})[0])
    )
    assert [cell for cell in whole if cell[1:3] not in [(large, 1), (large, 2)] or not cell[0].startswith("ed")] == part
    assert len(part) < len(whole)


def test_the_order_of_a_pool_does_not_depend_on_the_version_of_numpy() -> None:
    """Values of NumPy 2.4's ``default_rng(seed).permutation``, with which pools were drawn first."""
    assert permuted(range(8), 0) == [2, 4, 3, 6, 5, 0, 1, 7]
    assert permuted(range(20, 33), 2**63 - 1) == [20, 22, 23, 25, 27, 31, 29, 32, 26, 30, 28, 21, 24]
    assert digest(permuted(range(1000), 5), 16) == "e635cbf11888881e"
    assert (permuted([3], 1), permuted([], 1)) == ([3], [])


@pytest.mark.parametrize("name", sorted(KEYS))
def test_the_artefacts_of_a_built_in_suite_keep_their_keys(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.suite.load.computes_bf16", lambda: False)  # precision = "auto" means fp32 then
    nodes = sorted(build_plan(load_suite(name), FACTS).nodes)
    assert (len(nodes), digest(nodes, 16)) == KEYS[name]


@pytest.mark.parametrize("path", sorted(Path("examples").glob("*.toml")), ids=lambda path: path.stem)
def test_an_example_of_a_suite_is_planned(path: Path) -> None:
    plan = build_plan(load_suite(str(path)), FACTS)
    assert plan.cells
