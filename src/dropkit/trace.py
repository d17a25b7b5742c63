"""A trace: what a model did with dropout while it was run, as plain records that rules can read without torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum


class Phase(str, Enum):
    """The part of the run: forward in training mode, its backward (where checkpoints recompute), forward in eval."""

    TRAIN = "train"
    BACKWARD = "backward"
    EVAL = "eval"


class Form(str, Enum):
    """How a program comes by a dropout, which decides what reaches it.

    The first three are modules: in the model's tree, held where the tree does not see it, or made in the call and gone
    after it. A function is called by name; attention takes its rate as a number; a mask is drawn by hand.
    """

    REGISTERED = "registered"
    UNREGISTERED = "unregistered"
    PER_CALL = "per call"
    FUNCTION = "function"
    ATTENTION = "attention"
    MASK = "mask"


MODULES = (Form.REGISTERED, Form.UNREGISTERED, Form.PER_CALL)


@dataclass(frozen=True, slots=True)
class Place:
    """A line of the user's program: `path` as it is shown, `file` as Python knows it."""

    path: str
    line: int
    function: str
    file: str = ""

    def __str__(self) -> str:
        return f"{self.path}:{self.line}"


@dataclass(frozen=True, slots=True)
class Origin:
    """What made a tensor: the last operation, and the last that was more than an activation or a sum.

    Names are those of torch.nn's classes where there is one, else of torch's operators; "input" is the caller's own.
    """

    last: str = "input"
    layer: str = "input"


@dataclass(slots=True)
class Visit:
    """One passing of data through a site. Written while the model runs, only read afterwards.

    Attributes:
        phase: when.
        place: the line of the user's program that led here.
        shape: of the input; () if the site was not seen to receive one.
        p: the rate asked for; None where nothing says it.
        training: the flag that the call or its module had; None where there is none.
        inplace: whether the input itself was changed.
        function: the function that did it, by its torch name; None if none that is known.
        operator: what drew, by torch's or our name of the operator.
        dtype: of what was dropped from, without "torch.".
        device: its type, "cpu" or "cuda".
        drew: whether randomness was drawn.
        unit: shape of the coins against `shape`, 1 where coins are shared.
        coins: how many.
        dropped: how many of them dropped; None where a fused kernel keeps its mask to itself.
        elements: how many elements the dropped coins cover.
        independent: whether each coin fell for itself; false where one covers a block.
        keep: the first coins, to tell masks apart; None where a fused kernel keeps them to itself.
        chance: bits of chance in `keep`: so many and no fewer say that equal masks are one mask.
        keyed: whether the caller gave the key, so that equal masks are meant.
        origin: what made the input.
        feature_dim: dimension of the features, as the layer before left them; None if unknown.
        follows: the site whose output came here untouched.
        before: what used the output, in order.
        used: whether anything did.
        aliased: whether it was added to its own input, changed in place: the sum is of one tensor.
        variance: median over channels of the output's variance as a multiple of the input's, where batch norm followed.
        kept_bytes: memory held for backward.
        seconds: spent on dropping, forward and backward.
    """

    phase: Phase
    place: Place | None = None
    shape: tuple[int, ...] = ()
    p: float | None = None
    training: bool | None = None
    inplace: bool = False
    function: str | None = None
    operator: str | None = None
    dtype: str = ""
    device: str = ""
    drew: bool = False
    unit: tuple[int, ...] = ()
    coins: int = 0
    dropped: int | None = None
    elements: int = 0
    independent: bool = True
    keep: bytes | None = None
    chance: float = 0.0
    keyed: bool = False
    origin: Origin = field(default_factory=Origin)
    feature_dim: int | None = None
    follows: Site | None = None
    before: list[str] = field(default_factory=list[str])
    used: bool = False
    aliased: bool = False
    variance: float | None = None
    kept_bytes: int = 0
    seconds: float = 0.0


@dataclass(slots=True, eq=False)
class Site:
    """A place where a model drops, or could: a module, or a line of its forward.

    Attributes:
        name: in the module tree; for a function or a mask the module whose forward holds it.
        kind: Dropout, DropPath, MultiheadAttention, LSTM, dropout (a function), mask (drawn by hand) ...
        form: how the program comes by it.
        owners: class names from the model down to what holds the site, its own class included.
        p: the rate of the module when the audit began, or of the first call that named one.
        layers: of a recurrent network; None elsewhere.
        flag_in_train: the module's training flag after `model.train()`; None if it has none.
        flag_in_eval: the same after `model.eval()`.
        frozen: whether the module that holds it is in evaluation mode while the model trains.
        meant: whether the program says that it stays on in evaluation.
        named: whether a name around the line says so.
        carries_rate: never run itself, but another site beside it drops at its rate.
        visits: in order of execution.
    """

    name: str
    kind: str
    form: Form
    place: Place | None = None
    owners: tuple[str, ...] = ()
    p: float | bool | None = None
    layers: int | None = None
    flag_in_train: bool | None = None
    flag_in_eval: bool | None = None
    frozen: bool = False
    meant: bool = False
    named: bool = False
    carries_rate: bool = False
    visits: list[Visit] = field(default_factory=list[Visit])

    def of(self, *phases: Phase) -> Iterator[Visit]:
        """The visits of these phases."""
        return (visit for visit in self.visits if visit.phase in phases)

    def drew(self, *phases: Phase) -> bool:
        """Whether any visit of these phases drew."""
        return any(visit.drew for visit in self.of(*phases))

    @property
    def is_module(self) -> bool:
        return self.form in MODULES

    @property
    def reached(self) -> bool:
        return bool(self.visits)

    @property
    def calls(self) -> int:
        """How often it ran in training."""
        return sum(1 for _ in self.of(Phase.TRAIN))

    @property
    def kept_bytes(self) -> int:
        """Memory held for backward by all its visits."""
        return sum(visit.kept_bytes for visit in self.visits)

    @property
    def seconds(self) -> float:
        """Spent on dropping by all its visits."""
        return sum(visit.seconds for visit in self.visits)

    @property
    def rate(self) -> float | None:
        """The fraction of coins that dropped in training."""
        seen = [visit for visit in self.of(Phase.TRAIN) if visit.dropped is not None and visit.coins]
        coins = sum(visit.coins for visit in seen)
        return sum(visit.dropped or 0 for visit in seen) / coins if coins else None

    @property
    def label(self) -> str:
        """The name, and for a line of code its kind and place."""
        name = self.name or "(the model)"
        return name if self.is_module else f"{name}: {self.kind}{f' at {self.place}' if self.place else ''}"


@dataclass(frozen=True, slots=True)
class Switch:
    """What a module did when it was told its mode: an override of `train` or `eval` that breaks the contract."""

    name: str
    kind: str
    fault: str


@dataclass(frozen=True, slots=True)
class Draw:
    """Random numbers that were no dropout: an operator and the line that led to it."""

    operator: str
    place: Place | None


@dataclass(frozen=True, slots=True)
class Trace:
    """What a run of a model told about its dropout.

    Attributes:
        model: class name.
        sites: those reached, in order of execution; then those that exist and were not.
        switches: overrides of `train` and `eval` that break their contract.
        mixed: dropouts found in training mode under a model found in eval mode, when the audit began.
        idle_rates: (module, attribute, value) that hold a rate where nothing below drops.
        fast_paths: encoder layers that skip their dropouts though those are in training mode.
        draws: random numbers that were no dropout.
        backward_error: first line of what backward raised.
        branched: whether control flow ran whose branches are not seen.
        reseeded: whether torch's generator was seeded in the forward itself.
        stopped: what ended the run before its end; a rule then cannot say that something was not reached.
        alike_on_all_ranks: whether every rank of the group began with the same generator state; None if not asked.
        seconds: of all operators in training, forward and backward.
    """

    model: str
    sites: tuple[Site, ...] = ()
    switches: tuple[Switch, ...] = ()
    mixed: tuple[str, ...] = ()
    idle_rates: tuple[tuple[str, str, float], ...] = ()
    fast_paths: tuple[str, ...] = ()
    draws: tuple[Draw, ...] = ()
    backward_error: str | None = None
    branched: bool = False
    reseeded: bool = False
    stopped: str | None = None
    alike_on_all_ranks: bool | None = None
    seconds: float = 0.0
