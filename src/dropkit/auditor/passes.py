"""The passes of an audit: forward and backward in training mode, then forward in evaluation mode."""

from __future__ import annotations

import copy
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from dropkit.auditor.gradients import backward
from dropkit.auditor.module_tree import ModuleEntry, has_inner_dropout, is_dropout
from dropkit.auditor.recorder import Recorder
from dropkit.auditor.skipped_layers import skipped_layers
from dropkit.auditor.snapshot import ModelSnapshot, host_generators, restored, seed_everything
from dropkit.auditor.source_comments import marks_always_on, names_always_on
from dropkit.auditor.timing import Run, Stopwatch, Timings, timed_runs
from dropkit.auditor.train_mode import dropouts_in_train_mode, layers_on_fast_path, set_mode, switch_mode
from dropkit.catalog import HOLDER_KINDS, LAYER_DROP
from dropkit.containers import tensors_in_objects
from dropkit.modes import force_eager
from dropkit.trace import Form, ModeFault, Phase, Site, Trace


@dataclass(frozen=True, slots=True)
class Step:
    """The call that an audit runs: `call(model, *args, **kwargs)`.

    Attributes:
        entries: the model's modules.
        seed: seed of both passes.
    """

    model: nn.Module
    entries: Mapping[int, ModuleEntry]
    call: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    seed: int

    def copy_inputs(self) -> Any:
        """Copy the arguments; their tensors become leaves that require gradients if the originals did.

        Raises:
            TypeError: an argument cannot be copied.
        """
        inputs = self.args, self.kwargs
        memo: dict[int, Any] = {}
        for tensor in tensors_in_objects(inputs):
            memo[id(tensor)] = tensor.detach().clone().requires_grad_(tensor.requires_grad)
        try:
            return copy.deepcopy(inputs, memo)
        except (TypeError, RuntimeError) as error:
            raise TypeError(f"inputs must be tensors, or containers that can be copied: {error}") from error

    def forward(self, inputs: Any) -> Any:
        args, kwargs = inputs
        return self.call(self.model, *args, **kwargs)

    def set_seed(self) -> None:
        seed_everything(self.unusual_seed)

    @property
    def unusual_seed(self) -> int:
        """A seed that no model is likely to set, so that a model that seeds in its forward is noticed.

        Of the first random numbers of 0, by torch, Python and NumPy, half are below 1/2: LayerDrop keeps half of the
        layers.
        """
        return (self.seed * 2_654_435_761 + 0x5EED_D2A4) % 2**31


@dataclass(slots=True)
class _Observations:
    """What the passes find out, besides what the recorder records."""

    in_train_mode: list[str]
    fast_path_layers: list[str] = field(default_factory=list[str])
    mode_faults: list[ModeFault] = field(default_factory=list[ModeFault])
    # By phase and id of a module: its training flag.
    flags: dict[Phase, dict[int, bool]] = field(default_factory=dict[Phase, dict[int, bool]])
    backward_error: str | None = None
    is_reseeded: bool = False
    stopped: str | None = None
    # Whether the forward in training mode used Python's or NumPy's random numbers.
    has_host_choices: bool = False
    runs: list[Run] = field(default_factory=list[Run])


def run_passes(step: Step) -> Trace:
    """Run the model in both modes, restore it, and return what its dropouts did."""
    entries = step.entries
    modules = [entry.module for entry in entries.values()]
    observed = _Observations(dropouts_in_train_mode(step.model, entries))
    # Compiled code cannot be observed.
    with force_eager():
        if observed.in_train_mode:
            with restored(modules) as snapshot, snapshot.copying():
                observed.fast_path_layers += _fast_path_layers(step)
        with restored(modules) as snapshot:
            recorder = Recorder(entries, snapshot)
            try:
                _observe(step, snapshot, recorder, observed)
            except Exception as error:
                # The training pass alone makes a report. A model that cannot train is an error of the caller, unless
                # an invalid rate is the reason, which a rule reports.
                if recorder.phase is Phase.TRAIN and not _is_about_rate(entries, error):
                    raise
                observed.stopped = f"{recorder.phase.value}: {type(error).__name__}: {error}"
    sites = [site for site in recorder.sites if site.p or site.was_active(*Phase) or not _is_optional(site)]
    sites += _unreached(entries, recorder.sites)
    _add_skipped_layers(sites, entries, recorder, observed.has_host_choices)
    _complete(sites, entries, observed.flags)
    timings = Timings([*observed.runs, recorder.run])
    return Trace(
        model=type(step.model).__name__,
        sites=tuple(sites),
        mode_faults=tuple(dict.fromkeys(observed.mode_faults)),
        in_train_mode=tuple(observed.in_train_mode),
        unused_rates=tuple(_unused_rates(entries, sites, recorder.ran[Phase.TRAIN])),
        fast_path_layers=tuple(dict.fromkeys(observed.fast_path_layers)),
        other_random=tuple(dict.fromkeys(recorder.other_random(sites))),
        backward_error=observed.backward_error,
        factors_in_eval=recorder.factors_in_eval,
        is_reseeded=observed.is_reseeded,
        has_control_flow=recorder.has_control_flow,
        stopped=observed.stopped,
        seconds=timings.seconds,
        share=timings.attribute(recorder.timed, sites),
    )


def _observe(step: Step, snapshot: ModelSnapshot, recorder: Recorder, observed: _Observations) -> None:
    """Run all passes on copies of the inputs."""
    observed.runs += timed_runs(lambda run: _time(step, snapshot, run))
    for phase, run in ((Phase.TRAIN, _train), (Phase.EVAL, _evaluate)):
        with snapshot.copying():
            observed.mode_faults += switch_mode(step.model, phase)
        observed.flags[phase] = {id(entry.module): entry.module.training for entry in step.entries.values()}
        snapshot.clear_gradients()
        step.set_seed()
        before = host_generators()
        observed.backward_error = run(step, recorder, step.copy_inputs()) or observed.backward_error
        observed.has_host_choices = observed.has_host_choices or (phase is Phase.TRAIN and host_generators() != before)
        observed.is_reseeded = observed.is_reseeded or torch.initial_seed() != step.unusual_seed
    with snapshot.copying():
        observed.fast_path_layers += _fast_path_layers(step)


def _time(step: Step, snapshot: ModelSnapshot, run: Run) -> None:
    """Run one step, unobserved but for the time of its operators, and undo it."""
    inputs = step.copy_inputs()
    with snapshot.copying():
        set_mode(step.model, Phase.TRAIN)
    snapshot.clear_gradients()
    step.set_seed()
    # The stopwatch, which is entered first, does not time the copies.
    with torch.enable_grad(), Stopwatch(run), snapshot.copying():
        outputs = tensors_in_objects(step.forward(inputs))
        backward(step.model, outputs, tensors_in_objects(inputs))
    snapshot.restore()


def _train(step: Step, recorder: Recorder, inputs: Any) -> str | None:
    """Run forward and backward; return the first line of the error if backward fails."""
    with torch.enable_grad():
        with recorder.watch(Phase.TRAIN, tensors_in_objects(inputs)):
            outputs = step.forward(inputs)
            recorder.returned(tensors_in_objects(outputs))
        with recorder.watch(Phase.BACKWARD):
            return backward(step.model, tensors_in_objects(outputs), tensors_in_objects(inputs))


def _evaluate(step: Step, recorder: Recorder, inputs: Any) -> None:
    with torch.no_grad(), recorder.watch(Phase.EVAL, tensors_in_objects(inputs)):
        step.forward(inputs)


def _fast_path_layers(step: Step) -> list[str]:
    return layers_on_fast_path(step.entries, lambda: step.forward(step.copy_inputs()))


def _add_skipped_layers(
    sites: list[Site], entries: Mapping[int, ModuleEntry], recorder: Recorder, has_host_choices: bool
) -> None:
    """Add a site for each list of layers of which some were skipped, before what is inside."""
    known = {site.name for site in sites if site.kind == LAYER_DROP}
    for site in skipped_layers(entries, recorder.ran, recorder.choices, has_host_choices):
        if site.name not in known:
            inside = (index for index, other in enumerate(sites) if _is_under(other.name, site.name))
            sites.insert(next(inside, len(sites)), site)


def _is_about_rate(entries: Mapping[int, ModuleEntry], error: Exception) -> bool:
    """Whether an error is torch's for a rate outside of [0, 1]."""
    rates = (entry.rate for entry in entries.values() if entry.rate is not None)
    return "prob" in str(error) and any(not 0 <= rate <= 1 for rate in rates)


def _is_optional(site: Site) -> bool:
    """Whether a site is a layer that is used without dropout too, so that it is not listed at rate 0."""
    return site.form is Form.ATTENTION or site.kind in HOLDER_KINDS


def _unreached(entries: Mapping[int, ModuleEntry], reached: list[Site]) -> Iterator[Site]:
    """Yield sites for registered dropouts that never ran."""
    names = {site.name for site in reached if site.is_module}
    for entry in entries.values():
        module = entry.module
        drops = is_dropout(module) or (has_inner_dropout(module) and entry.rate)
        if not entry.is_registered or entry.name in names or not drops:
            continue
        layers = module.num_layers if isinstance(module, nn.RNNBase) else None
        site = Site(entry.name, type(module).__name__, Form.REGISTERED, None, (), entry.rate, layers)
        parent = entry.name.rpartition(".")[0]
        beside = (other for other in reached if not other.is_module and _is_under(other.name, parent))
        site.has_rate_used_elsewhere = any(
            visit.p == entry.rate for other in beside for visit in other.visits_in(Phase.TRAIN)
        )
        yield site


def _is_under(name: str, parent: str) -> bool:
    return not parent or name == parent or name.startswith(f"{parent}.")


def _complete(sites: list[Site], entries: Mapping[int, ModuleEntry], flags: Mapping[Phase, Mapping[int, bool]]) -> None:
    """Set the fields of sites that follow from training flags and from comments in the source."""
    ids = {entry.name: key for key, entry in entries.items()}
    in_train, in_eval = (flags.get(phase, {}) for phase in (Phase.TRAIN, Phase.EVAL))
    for site in sites:
        key = ids.get(site.name) if site.is_module else None
        if key is not None:
            site.flag_in_eval = in_eval.get(key)
        parent = ids.get(site.name.rpartition(".")[0] if site.is_module else site.name)
        site.is_frozen = parent is not None and in_train.get(parent) is False
        if site.place is not None and site.was_active(Phase.EVAL):
            site.is_marked_always_on = marks_always_on(site.place)
            site.is_named_always_on = names_always_on(site.place)


def _unused_rates(
    entries: Mapping[int, ModuleEntry], sites: list[Site], ran: Container[int]
) -> Iterator[tuple[str, str, float]]:
    """Yield attributes for a dropout rate in modules that ran, if nothing in or beside the module drops with it."""
    for key, entry in entries.items():
        module = entry.module
        is_known = is_dropout(module) or has_inner_dropout(module) or type(module).__module__.startswith("torch.nn.")
        if is_known or key not in ran:
            continue
        parent = entry.name.rpartition(".")[0]
        for attribute, value in vars(module).items():
            if not (isinstance(value, float) and 0 < value < 1 and "dropout" in attribute.lower()):
                continue
            is_used = any(
                _is_under(site.name, entry.name) or (_is_under(site.name, parent) and site.p == value) for site in sites
            )
            if not is_used:
                yield entry.name, attribute, value
