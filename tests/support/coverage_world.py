"""How often 95 % intervals cover the truth, on simulated predictions.

`python tests/support/coverage_world.py` prints tables.

Networks answer with logits: what all see in an example, what this network alone sees, its skill at the true class, and
its sharpness.  Ensembles mix their members' probabilities; a student takes over a share of its teachers' peculiarities,
skill and sharpness.  None of it is the additive model of the estimators.  The truth is the mean over all simulated
suites, of both kinds of pool.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from benchmarks.results.equivalents import equivalent
from benchmarks.results.pools import MemberEffects, member_effects, shared_members
from benchmarks.statistics import Interval, Means, Shared
from dbn_core.metrics.calibration import calibration_error_terms, confidence_and_hit
from dbn_core.metrics.dee import deep_ensemble_equivalent
from dbn_core.metrics.scores import correct, mixture_log_probs, negative_log_likelihood
from dbn_core.metrics.selective import augrc_terms

REPETITIONS = (2, 3, 5, 10)
SCORES = ("NLL", "ACC", "ECE", "AUGRC")
SIZES = (1, 2, 3, 4)
TAUGHT = 3


@dataclass(frozen=True)
class World:
    """One kind of networks; shares are what a student takes over from the mean of its teachers."""

    examples: int = 400
    classes: int = 5
    pool: int = 8
    peculiar: float = 0.9
    skill: float = 0.06
    sharpness: float = 0.06
    level_share: float = 0.3  # of skill and sharpness
    detail_share: float = 0.3  # of what a teacher sees in single examples
    own: float = 0.85  # what the student sees itself, relative to a member


WORLDS = {
    "students that hear a little": World(),
    "students like their teachers": World(level_share=0.8, detail_share=0.6, own=0.7),
    "deaf students": World(level_share=0.1, detail_share=0.1, own=0.9),
    "students that inherit details alone": World(level_share=0.0, detail_share=0.8, own=0.3),
    "few examples": World(examples=100),
    "alike networks, many examples": World(examples=2000, skill=0.01, sharpness=0.01),
}


class Draw:
    """One data set: fresh examples, and members and students on demand."""

    def __init__(self, world: World, rng: np.random.Generator) -> None:
        self.world, self.rng = world, rng
        n, k = world.examples, world.classes
        self.labels = rng.integers(0, k, n)
        self.seen = rng.standard_normal((n, k), np.float32)
        self.seen[np.arange(n), self.labels] += rng.normal(2.2, 1.6, n).astype(np.float32)

    def members(self, count: int) -> None:
        """Train a pool."""
        world, rng = self.world, self.rng
        self.skill = rng.normal(0, world.skill, count)
        self.sharp = rng.normal(0, world.sharpness, count)
        self.details = world.peculiar * rng.standard_normal((count, *self.seen.shape), np.float32)
        self.log_probs = np.stack(
            [self._answer(*each) for each in zip(self.details, self.skill, 1.3 * np.exp(self.sharp), strict=True)]
        )

    def student(self, teachers: list[int]) -> np.ndarray:
        """Train a student; its log-probabilities [N, K]."""
        world, rng = self.world, self.rng
        own = world.own * world.peculiar * rng.standard_normal(self.seen.shape, np.float32)
        details = world.detail_share * self.details[teachers].mean(0) + own
        skill = world.level_share * self.skill[teachers].mean() + 0.7 * rng.normal(0, world.skill)
        sharp = world.level_share * self.sharp[teachers].mean() + 0.7 * rng.normal(0, world.sharpness)
        return self._answer(details, skill, 1.2 * np.exp(sharp))

    def _answer(self, details: np.ndarray, skill: float, scale: float) -> np.ndarray:
        logits = self.seen + details
        logits[np.arange(len(self.labels)), self.labels] += skill
        logits *= scale
        logits -= logits.max(1, keepdims=True)
        return logits - np.log(np.exp(logits).sum(1, keepdims=True))

    def ensemble(self, members: list[int]) -> np.ndarray:
        """Log-probabilities of the mixture, [N, K]."""
        return mixture_log_probs(self.log_probs[members])

    def scores(self, log_probs: np.ndarray) -> np.ndarray:
        """Per-example scores [4, N]."""
        terms = (negative_log_likelihood, correct, calibration_error_terms, selection_terms)
        return np.stack([score(log_probs, self.labels) for score in terms])


def selection_terms(log_probs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Terms of AUGRC."""
    return augrc_terms(*confidence_and_hit(log_probs, labels))


@dataclass
class Suite:
    """Scores of one simulated suite: [4, R, N] by method, and what Shared needs."""

    scores: dict[str, np.ndarray]
    members: dict[str, list[tuple[tuple[int, int], ...]]]
    effects: list[MemberEffects] | None

    def shared(self, methods: list[str], score: int, repetitions: int) -> Shared | None:
        """What the first repetitions of methods have in common."""
        if self.effects is None:
            return None
        used = [self.members[method][:repetitions] for method in methods]
        return shared_members(used, [method != "student" for method in methods], self.effects[score])


def suite(world: World, shared: bool, rng: np.random.Generator, repetitions: int) -> Suite:
    """Simulate a suite as the harness plans it: in a shared pool sources differ, and the other members are drawn."""
    draw, effects = Draw(world, rng), None
    sources = rng.permutation(world.pool)
    scores: dict[str, list[np.ndarray]] = {}
    members: dict[str, list[tuple[tuple[int, int], ...]]] = {}
    if shared:
        draw.members(world.pool)
        everyone = list(range(world.pool))
        alone = [draw.scores(draw.log_probs[m]) for m in everyone]
        others = [draw.scores(draw.ensemble([o for o in everyone if o != m])) for m in everyone]
        effects = [member_effects(*each) for each in zip(np.stack(alone, 1), np.stack(others, 1), strict=True)]
    for repetition in range(repetitions):
        if shared:
            source = int(sources[repetition % world.pool])
            order = [source, *(int(m) for m in rng.permutation(world.pool) if m != source)]
        else:
            draw.members(max(SIZES))
            order = list(range(max(SIZES)))
        made = {f"DE-{size}": (draw.ensemble(order[:size]), size) for size in SIZES}
        made["student"] = (draw.student(order[:TAUGHT]), TAUGHT)
        for method, (log_probs, size) in made.items():
            scores.setdefault(method, []).append(draw.scores(log_probs))
            pool = 0 if shared else repetition
            members.setdefault(method, []).append(tuple((pool, m) for m in order[:size]))
    return Suite({method: np.stack(each, 1) for method, each in scores.items()}, members, effects)


def estimates(found: Suite, repetitions: int) -> Iterator[tuple[str, Interval]]:
    """Every kind of interval that a report prints, by name."""
    for index, score in enumerate(SCORES):
        mine = found.scores["student"][index, :repetitions]
        yield f"{score} of the student", Means(mine[None], found.shared(["student"], index, repetitions)).test()
        for other in ("DE-1", "DE-3"):
            gap = mine - found.scores[other][index, :repetitions]
            shared = found.shared(["student", other], index, repetitions)
            yield f"{score}, student - {other}", Means(gap[None], shared and shared.of(np.array([[1, -1]]))).test()
    ensembles = np.stack([found.scores[f"DE-{size}"][0, :repetitions] for size in SIZES])
    shared = found.shared(["student", *(f"DE-{size}" for size in SIZES)], 0, repetitions)
    minus = np.concatenate([np.ones((len(SIZES), 1)), -np.eye(len(SIZES))], 1)
    gaps = Means(found.scores["student"][0, :repetitions] - ensembles, shared and shared.of(minus))
    yield "DEE of the student", equivalent(gaps, SIZES)


def coverage(world: World, suites: int, seed: int = 0) -> dict[tuple[str, bool, int], float]:
    """Share of intervals that cover the truth, by (what, shared pool, repetitions)."""
    rng, most = np.random.default_rng(seed), max(REPETITIONS)
    ends: dict[tuple[str, bool, int], list[tuple[float, float]]] = {}
    means: dict[str, list[float]] = {}
    for _ in range(suites):
        for shared in (False, True):
            found = suite(world, shared, rng, most)
            for repetitions in REPETITIONS:
                for what, interval in estimates(found, repetitions):
                    ends.setdefault((what, shared, repetitions), []).append((interval.low, interval.high))
                    if repetitions == most and not what.startswith("DEE"):
                        means.setdefault(what, []).append(interval.value)
            for size in SIZES:
                means.setdefault(f"NLL of DE-{size}", []).append(found.scores[f"DE-{size}"][0].mean())
    truth = {what: float(np.mean(values)) for what, values in means.items()}
    curve = [truth[f"NLL of DE-{size}"] for size in SIZES]
    truth["DEE of the student"] = deep_ensemble_equivalent(truth["NLL of the student"], SIZES, curve)
    return {
        key: float(np.mean([low <= truth[key[0]] <= high for low, high in intervals]))
        for key, intervals in ends.items()
    }


def table(world: World, suites: int) -> str:
    """Coverage in percent as a Markdown table."""
    found = coverage(world, suites)
    columns = [(shared, repetitions) for shared in (False, True) for repetitions in REPETITIONS]
    lines = [
        "| | " + " | ".join(f"{'shared' if s else 'own'} pools, R = {r}" for s, r in columns) + " |",
        "|:--|" + "--:|" * len(columns),
    ]
    for what in dict.fromkeys(key[0] for key in found):
        lines.append(f"| {what} | " + " | ".join(f"{100 * found[what, s, r]:.1f}" for s, r in columns) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    for name, kind in WORLDS.items():
        print(f"\n{name}: {kind}, {count} suites\n\n{table(kind, count)}", flush=True)
