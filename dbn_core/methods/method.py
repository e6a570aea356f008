"""The Method protocol: everything the harness needs to know of an ensembling method.

A method is one class.  It says which *parts* it trains (a student, a curve, a bridge), how one part is fitted, and how
members and parts make a predictor.  The harness plans, trains, stores, measures and reports; it stores each part once,
so that two ensemble sizes which share a part share its training.

Every call may happen on another instance in another process, made from the method's spec: nothing that a call leaves
on ``self`` is seen by the next.  What fitting gives goes into the part.  See docs/plugins.md for the whole contract.

This module imports neither torch nor the harness, so that plugins can be listed without either.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from dbn_core.errors import SpecError
from dbn_core.options import KeyedOptions

if TYPE_CHECKING:
    import torch

    from dbn_core.measure.cost import Cost
    from dbn_core.methods.context import FitContext, PredictContext
    from dbn_core.nets.network import Network
    from dbn_core.nets.spec import NetworkOptions
    from dbn_core.train.recipe import Recipe


class Config(KeyedOptions):
    """Options of a method.  Frozen; unknown options are errors; defaults are the paper's."""

    def spec_options(self) -> dict[str, Any]:
        """The options that the canonical spec names: those that differ from their defaults.

        Override it where one option sets the defaults of others; the result must give an equal config again.
        """
        return self.model_dump(exclude_defaults=True)


@dataclass(frozen=True)
class Part:
    """One trained piece of a method.

    Attributes:
        name: unique within the method, for example ``bridge-1``.
        members: positions in the repetition's pool that fitting reads (position 0 is the source member).
        needs: names of other parts that fitting reads.
        settings: the options that fitting depends on, as :meth:`Config.key` gives them; parts that agree in name,
            members, needs and settings are trained once.  ``None`` means all options of the method.
        teacher_mixup: for parts that use :meth:`FitContext.teach`: alpha of the per-example mixup of the images that
            the members are shown, 0 for none.  A suite with ``teachers = "views(V)"`` then computes the members'
            logits beforehand, once for all parts.  ``None``: the members do not teach, or always online.
        teacher_augmentation: ``crop_pad``, ``flip`` and ``cutmix`` of those images, where they differ from the members'
            recipe; the recipe that the part is trained by must have the same.
        owner: the method that the part belongs to, when that is another one than lists it: results that are stored
            under either are then the same, so ``fit`` must do what the owner's does, and ``settings`` be its own.
    """

    name: str
    members: tuple[int, ...] = ()
    needs: tuple[str, ...] = ()
    settings: Mapping[str, Any] | None = field(default=None)
    teacher_mixup: float | None = None
    teacher_augmentation: Mapping[str, Any] = field(default_factory=dict)
    owner: type[Method] | None = None

    def teacher_recipe(self, recipe: Recipe) -> Recipe:
        """The members' recipe with the augmentation of the images on which they teach this part."""
        return recipe.replace(mixup=self.teacher_mixup or 0.0, **self.teacher_augmentation)


@dataclass(frozen=True)
class TrainingCost:
    """What fitting one part takes, for estimates.

    Attributes:
        epochs: over the training split; 0: nothing is trained.
        batch_size: examples of a step; an incomplete last batch is skipped.
        share: a step of what is trained, in steps of the suite's network.
        teachers: members that run on every batch where their logits are not stored.

    Raises:
        ValueError: a number that is negative, a batch of none, or no number.
    """

    epochs: int
    batch_size: int
    share: float = 1.0
    teachers: int = 0

    def __post_init__(self) -> None:
        whole = isinstance(self.epochs, int) and isinstance(self.batch_size, int) and isinstance(self.teachers, int)
        if not (whole and min(self.epochs, self.batch_size - 1, self.teachers) >= 0 and 0 <= self.share < float("inf")):
            raise ValueError(f"{self} is not what a training takes")


class Method(ABC):
    """Base class of every method; subclass it and decorate with ``@register("name")``."""

    name: ClassVar[str] = ""  # set by the decorator
    task: ClassVar[str] = "classification"  # what kind of suite it is for, see dbn_core.tasks.base
    title: ClassVar[str] = ""  # how a table calls it; the name when empty
    reference: ClassVar[str] = ""  # author, year, identifier of the paper
    networks: ClassVar[str] = ""  # in networks, M the size: "runs" a prediction, "trains" beyond the members
    version: ClassVar[int] = 1  # raise it when fitting changes, so that stored parts are not mistaken for new ones
    needs_batchnorm: ClassVar[bool] = False  # True when it works on BatchNorm statistics: other networks are refused
    needs_split: ClassVar[bool] = False  # True when it cuts networks in two, which only chains of blocks allow
    # Which members must have the suite's network, where given members mix networks: "none" if they are only run from
    # images to logits, "source" if member 0 is copied or taken apart, "all" if others are.  None: not said, so all.
    same_network: ClassVar[Literal["none", "source", "all"] | None] = None
    needs_blocks: ClassVar[bool] = False  # True when it changes layers within the blocks of built-in networks
    needs_last_layer: ClassVar[bool] = False  # True when it reads what the network's last linear layer reads
    width_option: ClassVar[str] = "width"  # the option that makes students narrower or wider, if there is one
    nested: ClassVar[bool] = False  # True when the terms of a small size are the first terms of a larger one
    # False for references, which others are measured against: they never count as best in the report.
    competes: ClassVar[bool] = True
    # What the numbers mean that `fit` gives to `context.record`, by name or pattern (`branch_*_mse`), for the report.
    records: ClassVar[Mapping[str, str]] = {}

    class Config(Config):
        """No options."""

    def __init__(self, config: Any = None) -> None:
        self.config: Any = self.Config() if config is None else config

    @classmethod
    def summary(cls) -> str:
        """First line of the docstring."""
        return (cls.__doc__ or "").strip().split("\n")[0]

    def check_size(self, size: int) -> None:
        """Raise :class:`SpecError` with a sentence when the method cannot be built for ``size`` members."""
        if size < 1:
            raise SpecError(f"{self.name}: an ensemble size must be at least 1, not {size}.")

    def check_network(self, network: NetworkOptions) -> None:
        """Raise :class:`SpecError` with a sentence when the method does not work with the suite's network."""
        if self.needs_split and not network.splits:
            raise SpecError(
                f"{self.name} cuts networks after a block, and '{network.label}' is no chain of blocks: use a ResNet, "
                "or remove the method."
            )
        if self.needs_blocks and not network.splits:
            raise SpecError(
                f"{self.name} changes layers within the blocks of a built-in ResNet, and '{network.label}' is none: "
                "use a ResNet, or remove the method."
            )
        if self.needs_batchnorm and getattr(network, "norm", "batchnorm") != "batchnorm":
            raise SpecError(
                f"{self.name} works on BatchNorm statistics, and the suite's networks have none: remove the method, or "
                'set [network] norm = "batchnorm".'
            )
        width = getattr(self.config, self.width_option, 1)
        if width != 1 and not network.splits:
            raise SpecError(
                f"{self.name}: '{network.label}' has one width: remove {self.width_option}={width:g}, or use a ResNet."
            )
        if network.splits:
            for node in self.feature_nodes(network):
                with self._naming():
                    network.feature_channels(node)

    def feature_nodes(self, network: NetworkOptions) -> tuple[str, ...]:
        """The blocks or submodules whose features the method reads, as its options name them."""
        return ()

    def check_built(self, network: Network, images: torch.Tensor) -> None:
        """As :meth:`check_network`, for what only the network itself can tell: its nodes, norms and last layer.

        Args:
            network: one of a library or plugin, with any weights, in evaluation mode.
            images: [B, C, H, W] as the suite has them.
        """
        from dbn_core.nets.network import check_last_layer, has_batchnorm

        with self._naming():
            if self.needs_batchnorm and not has_batchnorm(network):
                raise SpecError("The network has no BatchNorm: remove the method, or choose a network that has.")
            for node in self.feature_nodes(network.spec):
                try:
                    network.tap(node)(images)
                except SpecError as error:
                    raise SpecError(f"{error} {self._remedy(node)}".rstrip()) from error
            if self.needs_last_layer:
                check_last_layer(network, images)

    def _remedy(self, node: str) -> str:
        """Which option names a node of the network that cannot be read."""
        options = type(self.config).model_fields
        option = next((name for name in options if getattr(self.config, name) == node), None)
        if option is None:
            return ""
        return f"Set its option {option}" + (
            f", whose default is '{node}'." if options[option].default == node else "."
        )

    @contextmanager
    def _naming(self) -> Iterator[None]:
        """Put the method's name in front of a :class:`SpecError`."""
        try:
            yield
        except SpecError as error:
            sentence = str(error)
            raise SpecError(f"{self.name}: {sentence[:1].lower()}{sentence[1:]}") from error

    def check_pool(self, source_alike: bool, network: NetworkOptions) -> None:
        """Raise :class:`SpecError` with a sentence when the method does not work on members of several networks.

        Args:
            source_alike: whether member 0 has the suite's ``network``; others have another one.
        """
        remedy = f"remove the method, or give members of '{network.label}'"
        if self.same_network is None:
            raise SpecError(
                f"{self.name} does not say that it works on members of several networks, which [pool] checkpoints "
                'gives: set same_network = "none" in its class if it only runs them, or remove the method.'
            )
        if self.same_network == "all":
            raise SpecError(
                f"{self.name} needs members of one network, and [pool] checkpoints gives several: {remedy} alone."
            )
        copies = self.same_network == "source" or getattr(self.config, "start", None) == "source"
        if copies and not source_alike:
            raise SpecError(
                f"{self.name} copies or takes apart its source, and no member has the network of [network]: {remedy}."
            )

    def parts(self, size: int) -> Sequence[Part]:
        """The parts to train for ``size`` members, every part after the parts that it needs."""
        return ()

    def members(self, size: int) -> tuple[int, ...]:
        """Positions of the pool members whose weights the *predictor* uses (not those that only teach)."""
        return ()

    def terms(self, size: int) -> int:
        """How many terms [M, B, K] the predictor returns; only used for methods that are ``nested``."""
        return size

    def fit(self, part: Part, context: FitContext) -> torch.nn.Module | Mapping[str, torch.Tensor]:
        """Train one part; return the module (its state is stored) or the tensors to store."""
        raise SpecError(f"{self.name} declares the part '{part.name}' but does not define fit().")

    def training_cost(self, part: Part, recipe: Recipe, student_epochs: int) -> TrainingCost:
        """What ``fit`` takes for one part, for the estimate of a run; override it where the default is wrong.

        The default is a network of the suite's size that all members of the part teach.  Its epochs and its batch are
        those of the options ``epochs`` and ``batch_size``, where the method has them, else the suite's.

        Args:
            recipe: of the members.
            student_epochs: the suite's budget of a trained part.
        """
        epochs, batch = (getattr(self.config, name, None) for name in ("epochs", "batch_size"))
        epochs = epochs if isinstance(epochs, int) else student_epochs
        return TrainingCost(epochs, batch if isinstance(batch, int) else recipe.batch_size, 1.0, len(part.members))

    @abstractmethod
    def predictor(self, size: int, context: PredictContext) -> torch.nn.Module:
        """A module that maps images, float [B, C, H, W] in [0, 1], to log-probabilities [B, K] or [M, B, K].

        M terms are averaged as probabilities.  Everything that a prediction costs (every member, every sampler step)
        must happen in its forward pass, because that is what the harness counts and times.  A forward pass may draw
        from the global generators (dropout that stays on): each prediction has a seed.
        """

    def cost(self, size: int, context: PredictContext, counted: Cost) -> Cost | None:
        """State the cost of one prediction of one example; ``None`` when it can be counted, as in torch it can.

        Only for predictors that compute outside torch (NumPy, scikit-learn, ONNX, JAX), where no counter sees them.
        Return the cost of the whole prediction, ``counted + Cost(params, macs)``: ``counted`` is what torch's counter
        saw, and less is refused.  The result is marked as stated wherever it is shown.
        """
        return None
