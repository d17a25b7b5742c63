"""Trace: what a model's dropouts did while it ran, as plain records that rules read without importing torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum


class Phase(str, Enum):
    """A part of the run: forward in training mode, backward (where checkpoints recompute), forward in eval mode."""

    TRAIN = "train"
    BACKWARD = "backward"
    EVAL = "eval"


class Form(str, Enum):
    """How a dropout is written in the program, which decides whether `model.eval()` reaches it.

    The first three are modules: registered in the model, held in a plain container, or created in `forward` and gone
    after the call. A function is called by name, attention takes its rate as a number, a mask is computed by hand.
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
    """A line of the user's program: `path` as it is displayed, `file` as Python names it."""

    path: str
    line: int
    function: str
    file: str = ""

    def __str__(self) -> str:
        return f"{self.path}:{self.line}"


@dataclass(frozen=True, slots=True)
class Origin:
    """What computed a tensor: the last operation, and the last one that is more than an activation or a sum.

    Names are those of torch.nn's classes where there is one, else of torch's operators; "input" is the model's input.
    """

    last: str = "input"
    layer: str = "input"


@dataclass(frozen=True, slots=True)
class Share:
    """A fraction of the time of all operators: the lowest and the highest that several runs of a step give."""

    low: float = 0.0
    high: float = 0.0

    @property
    def is_reliable(self) -> bool:
        """Whether the runs agree on it, up to a factor of 2."""
        return 0 < self.high <= 2 * self.low


@dataclass(slots=True)
class Visit:
    """One execution of a site. Written while the model runs, and only read afterwards.

    Attributes:
        phase: the part of the run.
        place: line of the user's program that led here.
        shape: of the input; () if the site was not seen to receive one.
        p: requested rate; None if unknown.
        training: flag of the call or its module; None if it has none.
        inplace: whether the input itself was changed.
        function: torch's name of the function that dropped; None if it is no known one.
        dtype: of the input, without "torch.".
        is_active: whether random numbers were drawn for a mask, as `auditor/random_draws.py` saw.
        mask_shape: shape of the mask, with as many dimensions as `shape`: 1 where mask elements are shared.
        mask_elements: number of mask elements.
        dropped: number of mask elements that drop; None if a fused kernel does not expose its mask.
        dropped_elements: number of input elements that those mask elements zero.
        is_independent: whether mask elements are independent; False if one covers a block, or their number is fixed.
        covers: what one mask element covers, where its shape does not tell.
        mask_start: first mask elements, to tell masks apart; None if a fused kernel does not expose its mask.
        entropy: of `mask_start` in bits: if it is large, equal `mask_start` means equal masks.
        has_given_key: whether the caller passed the key, so that equal masks are intended.
        origin: what computed the input.
        feature_dim: dimension of the features, as the layer before laid them out; None if unknown.
        previous: site whose output is the input of this one.
        between: activation between both that keeps zeros and scale, such as ReLU; "" if there is none.
        factor: what a mask computed by hand multiplies kept elements by; None if unknown.
        mask_kind: what its input looks like: "binary" if it holds zeros and ones, "additive" if it holds zeros and very
            negative numbers; "" for anything else.
        consumers: what used the output, in order.
        is_used: whether anything used the output.
        is_added_to_itself: whether the output was added to the input, which is the same tensor changed in place.
        variance_ratio: variance of the output divided by that of the input, median over channels; None unless batch
            norm followed.
        kept_bytes: memory of the mask saved for backward.
        seconds: time spent on dropping, forward and backward: for each operator the least of several runs.
    """

    phase: Phase
    place: Place | None = None
    shape: tuple[int, ...] = ()
    p: float | None = None
    training: bool | None = None
    inplace: bool = False
    function: str | None = None
    dtype: str = ""
    is_active: bool = False
    mask_shape: tuple[int, ...] = ()
    mask_elements: int = 0
    dropped: int | None = None
    dropped_elements: int = 0
    is_independent: bool = True
    covers: str = ""
    mask_start: bytes | None = None
    entropy: float = 0.0
    has_given_key: bool = False
    origin: Origin = field(default_factory=Origin)
    feature_dim: int | None = None
    previous: Site | None = None
    between: str = ""
    factor: float | None = None
    mask_kind: str = ""
    consumers: list[str] = field(default_factory=list[str])
    is_used: bool = False
    is_added_to_itself: bool = False
    variance_ratio: float | None = None
    kept_bytes: int = 0
    seconds: float = 0.0


@dataclass(slots=True, eq=False)
class Site:
    """A dropout of a model, active or not: a module, or a line of a `forward`.

    Attributes:
        name: name in the module tree; for a function or a mask the module whose `forward` contains it.
        kind: Dropout, DropPath, MultiheadAttention, LSTM, dropout (a function), mask (computed by hand) ...
        form: how it is written in the program.
        owners: class names from the model down to the site's own module.
        p: rate of the module before the audit, or of the first call that passed one.
        layers: number of layers of a recurrent network; None elsewhere.
        flag_in_eval: the module's training flag after `model.eval()`; None if it has none.
        is_frozen: whether the module that contains it is in evaluation mode while the model trains.
        is_marked_always_on: whether a marker comment says that it stays active in evaluation mode.
        is_named_always_on: whether names, docstrings or other comments around the line say so.
        has_rate_used_elsewhere: never executed itself, but a function beside it drops with its rate.
        share: of the training step's time.
        visits: in order of execution.
    """

    name: str
    kind: str
    form: Form
    place: Place | None = None
    owners: tuple[str, ...] = ()
    p: float | bool | None = None
    layers: int | None = None
    flag_in_eval: bool | None = None
    is_frozen: bool = False
    is_marked_always_on: bool = False
    is_named_always_on: bool = False
    has_rate_used_elsewhere: bool = False
    share: Share = Share()
    visits: list[Visit] = field(default_factory=list[Visit])

    def visits_in(self, *phases: Phase) -> Iterator[Visit]:
        """Iterate over the visits of these phases."""
        return (visit for visit in self.visits if visit.phase in phases)

    def was_active(self, *phases: Phase) -> bool:
        """Whether any visit of these phases drew a mask."""
        return any(visit.is_active for visit in self.visits_in(*phases))

    @property
    def is_off(self) -> bool:
        """Whether its rate is 0, and it never dropped."""
        is_zero = self.p is not None and self.p == 0 and not any(visit.p for visit in self.visits)
        return is_zero and not self.was_active(*Phase)

    @property
    def is_module(self) -> bool:
        return self.form in MODULES

    @property
    def was_reached(self) -> bool:
        return bool(self.visits)

    @property
    def was_skipped(self) -> bool:
        """Whether evaluation reached it, and training, which leaves layers out at random, did not."""
        return bool(self.visits) and not any(self.visits_in(Phase.TRAIN)) and not self.was_active(*Phase)

    @property
    def calls(self) -> int:
        """Number of calls in training mode."""
        return sum(1 for _ in self.visits_in(Phase.TRAIN))

    @property
    def kept_bytes(self) -> int:
        """Memory of masks saved for backward, of all visits."""
        return sum(visit.kept_bytes for visit in self.visits)

    @property
    def seconds(self) -> float:
        """Time spent on dropping, of all visits."""
        return sum(visit.seconds for visit in self.visits)

    @property
    def rate(self) -> float | None:
        """Fraction of mask elements that dropped in training; None if no mask was seen."""
        counted = [visit for visit in self.visits_in(Phase.TRAIN) if visit.dropped is not None and visit.mask_elements]
        mask_elements = sum(visit.mask_elements for visit in counted)
        return sum(visit.dropped or 0 for visit in counted) / mask_elements if mask_elements else None

    @property
    def label(self) -> str:
        """The name, followed by kind and place for a function or a mask."""
        name = self.name or "(the model)"
        return name if self.is_module else f"{name}: {self.kind}{f' at {self.place}' if self.place else ''}"


@dataclass(frozen=True, slots=True)
class ModeFault:
    """A module whose `train()` or `eval()` breaks the contract of torch's."""

    name: str
    kind: str
    fault: str


@dataclass(frozen=True, slots=True)
class RandomOperation:
    """An operator that drew random numbers for something other than dropout, and the line that led to it."""

    operator: str
    place: Place | None


@dataclass(frozen=True, slots=True)
class Trace:
    """What one run of a model showed about its dropout.

    Attributes:
        model: class name.
        sites: those reached, in order of execution; then those that exist and were not reached.
        mode_faults: overrides of `train` and `eval` that break their contract.
        in_train_mode: dropouts in training mode inside a model in evaluation mode, when the audit began.
        unused_rates: (module, attribute, value) of dropout rates where nothing in the module drops.
        fast_path_layers: encoder layers whose fast path skips dropouts that are in training mode.
        other_random: random operations that are no dropout.
        backward_error: first line of the exception raised by backward.
        factors_in_eval: numbers that tensors are multiplied by in evaluation mode.
        has_control_flow: whether operators such as `torch.cond` ran, whose branches are not seen.
        is_reseeded: whether the forward seeds torch's generator.
        stopped: exception that ended the run early; rules then cannot know that something was not reached.
        ranks_draw_alike: whether every rank of the group would draw the same masks; None if not asked.
        seconds: time of all operators in training, forward and backward: for each the least of several runs.
        share: of the dropouts in this time.
    """

    model: str
    sites: tuple[Site, ...] = ()
    mode_faults: tuple[ModeFault, ...] = ()
    in_train_mode: tuple[str, ...] = ()
    unused_rates: tuple[tuple[str, str, float], ...] = ()
    fast_path_layers: tuple[str, ...] = ()
    other_random: tuple[RandomOperation, ...] = ()
    backward_error: str | None = None
    factors_in_eval: frozenset[float] = frozenset()
    has_control_flow: bool = False
    is_reseeded: bool = False
    stopped: str | None = None
    ranks_draw_alike: bool | None = None
    seconds: float = 0.0
    share: Share = Share()
