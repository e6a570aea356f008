"""Make one artefact: train a member or a part, predict, or count the cost.

Workers share only the store, so a node can run in this process, in another one, or on another machine.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch
from torch import nn

from benchmarks.environment import numerics
from benchmarks.store.artefacts import Store
from benchmarks.suite.plan import Node, sha256_of
from benchmarks.suite.schema import Suite
from benchmarks.work.calling import build_predictor, fit_part, make_views, member_logits, train_member
from benchmarks.work.given import check_accuracy, network_of_file, new_network
from benchmarks.work.planning import facts_of, facts_stated, forget_data
from benchmarks.work.run_status import RunHandle, watched
from dbn_core.data.dataset import Dataset, Split
from dbn_core.data.shifted import shifted_sets
from dbn_core.data.views import Views
from dbn_core.errors import DataError, TrainingDivergedError
from dbn_core.measure.cost import predictor_cost
from dbn_core.methods.context import FitContext, PredictContext, freeze
from dbn_core.methods.evaluation import predict_split
from dbn_core.methods.method import Method, Part
from dbn_core.methods.registry import parse_method, plugin_of
from dbn_core.metrics.scores import mixture_log_probs
from dbn_core.nets.spec import NetworkOptions, NetworkSpec
from dbn_core.rng import generator, seeded
from dbn_core.tasks.classification import check_log_probs
from dbn_core.tensors import in_bf16, in_fp16, is_finite, pack, unpack
from dbn_core.train.loop import TrainLog
from dbn_core.train.monitor import Monitor
from dbn_core.train.recipe import Recipe


@lru_cache(maxsize=1)
def _datasets(suite_json: str) -> dict[tuple[int, bool], Dataset]:
    """Loaded data of one suite, by repetition and whether training images are on the device; the next replaces them."""
    return {}


class ArtefactBuilder:
    """Makes the artefacts of a suite in one process."""

    def __init__(self, suite: Suite, store: Store, device: str = "auto", repetition: int = 0) -> None:
        self.suite, self.store = suite, store
        self.device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
        torch.backends.cudnn.allow_tf32 = False  # else convolutions of "fp32" would use TF32
        self._suite_json = suite.model_dump_json()
        self._monitor: Monitor | None = None
        self._repetition = repetition  # whose split of the data is used

    @property
    def data(self) -> Dataset:
        """The data, loaded on first use and kept."""
        return self._data_of(self._repetition)

    def _data_of(self, repetition: int) -> Dataset:
        known = _datasets(self._suite_json)
        if (repetition, False) not in known:
            known[repetition, False] = self.suite.data.for_repetition(repetition, self.suite.seed).load()
        return known[repetition, False]

    def _check_data(self, node: Node) -> None:
        """Compare the data with the recipe of a node; load them again if they differ.

        Raises:
            DataError: they still differ.
        """
        wanted = facts_stated(node.recipe)
        for _ in range(2):  # first as loaded before, then as they are now
            # Recipes name the data by the split of the first repetition.
            found = facts_of(self._data_of(0), wanted)
            if found == wanted:
                return
            _datasets.cache_clear()
        forget_data(self.suite, self.store)
        raise DataError(
            f"The data on {socket.gethostname()} have {_shown(found)}, but {node.title} was planned with "
            f"{_shown(wanted)}: run the suite again if the data were changed, or else install the same data, Pillow "
            "and scikit-learn on all machines."
        )

    @property
    def _data_on_device(self) -> Dataset:
        """The data, with the training images on the device if they fit."""
        data = self.data
        if not self._has_room(data.train.images, data.unseen.images if data.unseen else None):
            return data
        known = _datasets(self._suite_json)
        if (self._repetition, True) not in known:
            unseen = data.unseen.to(self.device) if data.unseen else None
            known[self._repetition, True] = replace(data, train=data.train.to(self.device), unseen=unseen)
        return known[self._repetition, True]

    def _has_room(self, *tensors: torch.Tensor | None) -> bool:
        """Whether the device is a GPU with room for eight copies, since other processes may need as much."""
        if self.device.type != "cuda":
            return False
        size = sum(tensor.nbytes for tensor in tensors if tensor is not None)
        return 8 * size < torch.cuda.mem_get_info(self.device)[0]

    def _shared(self, axes: Mapping[str, Any]) -> dict[str, Any]:
        suite = self.suite
        return {"data": self.data, "spec": suite.network, "device": self.device, "axes": axes, "task": suite.task}

    def _load(self, kind: str, key: str) -> dict[str, torch.Tensor]:
        return unpack(self.store.content(kind, key))[0]

    def member(self, key: str) -> nn.Module:
        """A trained member, frozen, on the device."""
        network = PredictContext(**self._shared({})).bare_network(self._network_of(key))
        network.load_state_dict(self._load("member", key))
        return freeze(network.to(self.device).to(memory_format=torch.channels_last))

    def _network_of(self, member: str) -> NetworkOptions:
        if not self.suite.mixes_networks:
            return self.suite.network
        return self.suite.network_of(self.store.value("member", member)["value"]["recipe"]["index"])

    def run(self, node: Node, handle: RunHandle | None = None) -> None:
        """Make one artefact and store it; after a failure nothing is stored."""
        if handle is None:
            self._run(node)
            return
        with watched(handle, node.key, node.title) as self._monitor:
            self._run(node)

    def _run(self, node: Node) -> None:
        started = time.monotonic()
        self._repetition = node.recipe.get("split", 0)
        self._check_data(node)
        make = {
            "member": self._train_member,
            "views": self._teach_views,
            "part": self._fit_part,
            "predictions": self._predict,
            "shifts": self._predict_shifted,
            "cost": self._count_cost,
        }[node.kind]
        with seeded(self.device, node=node.key):  # for dropout, and modules that torch initialises
            value, content = make(node)
        value |= {"seconds": time.monotonic() - started, "recipe": node.recipe, "title": node.title}
        value["numerics"] = numerics(self.device)
        if plugin := plugin_of(node.recipe.get("method", "")):
            value["plugin_sha256"] = plugin[1]
        self.store.put(node.kind, node.key, value, content)
        self.store.drop_checkpoints(node.key)

    def _train_member(self, node: Node) -> tuple[dict[str, Any], bytes]:
        if "checkpoint" in node.recipe:
            return self._read_member(node)
        axes = {k: node.recipe[k] for k in ("seed", "data", "pool", "index")} | {"kind": "member"}
        spec = self.suite.network  # seeds of built-in classifiers name all options, as those of released members do
        axes["network"] = spec.model_dump() if isinstance(spec, NetworkSpec) else node.recipe["network"]
        context = self._fit_context(node, axes, [], {})
        state = train_member(context).state_dict()
        return self._training_value(context), pack(state if self.suite.pool.weights == "fp32" else in_bf16(state))

    def _read_member(self, node: Node) -> tuple[dict[str, Any], bytes]:
        """A member from its weights file; its passes are those that [recipe] states.

        Raises:
            DataError: the file was changed, does not fit the network, or its network is at chance on validation.
        """
        file = node.payload["file"]
        if sha256_of(file) != node.recipe["checkpoint"]:
            raise DataError(f"{file} changed since the run was planned: start the run again.")
        spec = self.suite.network_of(node.recipe["index"])
        network = network_of_file(new_network(self.suite.task, spec, self.data), file, self.device)
        accuracy = check_accuracy(network, file, self.suite.task, self.data, self.device)
        passes = self.suite.recipe.epochs * len(self.data.train)
        value = {"train_seconds": 0.0, "student_passes": passes, "teacher_passes": 0, "logs": [], "records": {}}
        return value | {"validation_accuracy": accuracy}, pack(network.state_dict())

    def _views(self, count: int, recipe: Recipe, unseen: bool = False) -> Views:
        """``count`` copies of the training split, or of unseen images, as ``recipe`` augments and mixes them."""
        data = self._data_on_device
        split = data.unseen if unseen else data.train
        assert split is not None, "the suite refuses unseen images where the data have none"
        # The member is no axis: all teachers see the same images.
        return make_views(split, recipe, data.flip, count, {"seed": self.suite.seed, "data": data.fingerprint})

    def _teach_views(self, node: Node) -> tuple[dict[str, Any], bytes]:
        """A member's logits on every view [V, N, K], in half precision; computed in the precision of the students."""
        started = time.monotonic()
        recipe = Recipe.model_validate(node.recipe["recipe"])
        views = self._views(node.recipe["count"], recipe, "unseen" in node.recipe)
        member = self.member(node.recipe["member"])
        logits = member_logits(member, views, self.device, recipe.precision)
        if not torch.isfinite(logits).all():
            raise TrainingDivergedError(f"{node.title}: they overflow half precision: use online teachers.")
        value = {
            "train_seconds": time.monotonic() - started,
            "student_passes": 0,
            "teacher_passes": views.count * len(views.split),
        }
        return value, pack({"logits": logits})

    def _fit_context(
        self, node: Node, axes: Mapping[str, Any], members: list[str], parts: Mapping[str, str]
    ) -> FitContext:
        return FitContext(
            **self._shared(axes) | {"data": self._data_on_device},
            recipe=Recipe.model_validate(node.recipe["recipe"]),
            student_epochs=self.suite.students.epochs,
            members=[self.member(key) for key in members],
            parts={name: self._load("part", key) for name, key in parts.items()},
            checkpoint=self.store.checkpoint_path(node.key),
            monitor=self._monitor,
            run_name=node.title,
        )

    @staticmethod
    def _training_value(context: FitContext) -> dict[str, Any]:
        logs = context.logs
        return {
            "train_seconds": sum(log.seconds for log in logs),
            "student_passes": sum(log.examples for log in logs),
            "teacher_passes": context.teacher_passes,
            "logs": [_summary(log) for log in logs],
            "records": context.records,
        }

    def _fit_part(self, node: Node) -> tuple[dict[str, Any], bytes]:
        method, part = _method_and_part(node)
        axes = {k: node.recipe[k] for k in ("seed", "data", "network", "method", "part", "settings", "repetition")}
        context = self._fit_context(node, axes, node.payload["members"], node.payload["parts"])
        if node.payload["views"]:
            count, recipe = node.payload["view_count"], part.teacher_recipe(self.suite.recipe)
            context.stored_views = self._views(count, recipe, "unseen" in node.recipe)
            stored = [self._load("views", key)["logits"] for key in node.payload["views"]]
            context.stored_logits = [x.to(self.device) for x in stored] if self._has_room(*stored) else stored
        state = fit_part(method, part, context)
        for name, tensor in state.items():
            if not is_finite(tensor):
                raise TrainingDivergedError(
                    f"{node.title}: '{name}' is not finite after training: lower the learning rate."
                )
        return self._training_value(context), pack(state)

    def _predict_context(self, payload: Mapping[str, Any]) -> tuple[Method, PredictContext]:
        method = parse_method(payload["spec"])
        context = PredictContext(
            **self._shared({"seed": self.suite.seed, "method": method.name, "kind": "predictor"}),
            members={int(position): self.member(key) for position, key in payload["members"].items()},
            parts={name: self._load("part", key) for name, key in payload["parts"].items()},
        )
        return method, context

    def predictor(self, payload: Mapping[str, Any]) -> nn.Module:
        """The predictor of a predictions or cost node, from its payload."""
        method, context = self._predict_context(payload)
        return build_predictor(method, payload["size"], context)

    def _predict(self, node: Node) -> tuple[dict[str, Any], bytes]:
        # The method is no axis of the seed: all methods start from the same noise.
        axes = {name: node.recipe.get(name) for name in ("seed", "data", "repetition")}
        predictor, draws = self.predictor(node.payload), generator(**axes, purpose="predict")
        tensors = self.suite.task.predict(predictor, self.data, self.device, draws, node.payload["spec"])
        if self.suite.predictions == "fp16":
            tensors |= {name: in_fp16(tensors[name]) for name in ("validation", "test") if name in tensors}
        if self.suite.data.resplits:
            assert self.data.test_ids is not None, "a source that resplits names its examples"
            tensors["test_ids"] = self.data.test_ids
        return {}, pack(tensors)

    def _predict_shifted(self, node: Node) -> tuple[dict[str, Any], bytes]:
        """Log-probabilities on each set of shifted images, in half precision: [M, N, K] of a nested method's terms.

        The terms of any other method are averaged, [1, N, K].  Labels are those of the first N test images.
        """
        predictor, spec = self.predictor(node.payload), node.payload["spec"]
        nested, axes = parse_method(spec).nested, {name: node.recipe[name] for name in ("seed", "data")}
        tensors = {}
        for name, images in shifted_sets(self.data, **node.recipe["shift"], **axes):
            terms = predict_split(predictor, Split(images, torch.zeros(len(images), dtype=torch.int64)), self.device)
            terms = check_log_probs(terms, len(images), self.data.num_classes, spec)
            tensors[name] = in_fp16(terms if nested else torch.from_numpy(mixture_log_probs(terms.numpy()))[None])
        return {}, pack(tensors)

    def _count_cost(self, node: Node) -> tuple[dict[str, Any], bytes]:
        predictor, (method, context) = self.predictor(node.payload), self._predict_context(node.payload)
        example = torch.zeros(1, self.data.channels, *self.data.image_size, device=self.device)
        cost, stated = predictor_cost(
            predictor, example, lambda counted: method.cost(node.payload["size"], context, counted), method.name
        )
        return {"params": cost.params, "macs": cost.macs, "flops": cost.flops, "stated": stated}, b""


def _shown(facts: Mapping[str, Any]) -> str:
    return " and ".join(f"{name} {str(value)[:12]}" for name, value in facts.items())


def _summary(log: TrainLog) -> dict[str, Any]:
    return {
        "epochs": log.epochs,
        "steps": log.steps,
        "loss": log.loss,
        "best_epoch": log.best_epoch,
        "last": log.history[-1:],
    }


def _method_and_part(node: Node) -> tuple[Method, Part]:
    method = parse_method(node.payload["spec"])
    return method, next(part for part in method.parts(node.payload["size"]) if part.name == node.payload["part"])
