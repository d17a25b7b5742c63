"""RateSchedule: moves the dropout rates of a model, step by step, as torch's schedulers move learning rates."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from dropkit.nn.dynamic_rate import DynamicRate
from dropkit.patch.convert import convert as convert_modules
from dropkit.patch.rate_sites import Choice, Site, choose, find_sites


class RateSchedule:
    """Moves dropout rates of a model; the first value is set at once, each call of `step` sets the next.

    Compiled code is not compiled again for modules of dropkit, which those of `torch.nn` become; it is for attention,
    recurrent networks and other libraries' layers, whose rate is an attribute that compilers take for a constant.

    Args:
        model: the model, before or after `torch.compile`.
        rate: from the step, an int from 0 on, to a factor or a rate: one of `dropkit.schedules`, or any function.
        sites: names of sites, or patterns of names such as "encoder.*"; or a function of name and module; every layer
            that drops if None. A module that is no dropout layer may keep a rate in an attribute, and pass it to a
            function: the name of such a site is that of module and attribute, `layers.0.attention.dropout_rate`, and
            only names and patterns choose it.
        relative: multiply each site's own rate, the one that it has now, by `rate`; if false, `rate` itself becomes
            the rate of every site, those at rate 0 included.
        convert: turn the chosen dropout modules of `torch.nn` into dropkit's, in place; see `dropkit.convert`.

    Attributes:
        sites: the chosen sites.
        others: sites that were not chosen.
        last_step: the step whose rates are set.

    Raises:
        ValueError: nothing is chosen, a name or pattern matches nothing, all rates are 0 and `relative` is true, or
            a rate at some step is not in [0, 1].
        TypeError: `rate` returns something else than a number.

    Example:
        >>> from dropkit.schedules import Early, RateSchedule
        >>> model = torch.nn.Sequential(torch.nn.Dropout(0.1), torch.nn.Linear(8, 8), torch.nn.Dropout(0.4))
        >>> schedule = RateSchedule(model, Early(steps=2, decays=True))
        >>> for _ in range(3):
        ...     print(schedule.get_last_rate())  # the training step, then:
        ...     schedule.step()
        {'0': 0.1, '2': 0.4}
        {'0': 0.05, '2': 0.2}
        {'0': 0.0, '2': 0.0}
        >>> schedule
        RateSchedule(Early(steps=2, value=1.0, decays=True), relative=True), step 3
          0: dropkit Dropout 0.1 -> 0
          2: dropkit Dropout 0.4 -> 0
    """

    def __init__(
        self,
        model: nn.Module,
        rate: Callable[[int], float],
        *,
        sites: Choice = None,
        relative: bool = True,
        convert: bool = True,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
        if not callable(rate):
            raise TypeError(f"rate must be a function of the step, got {rate!r}")
        found = find_sites(model)
        self.sites: tuple[Site, ...] = tuple(choose(found, sites))
        self.others: tuple[Site, ...] = tuple(site for site in found if site not in self.sites)
        self.last_step = 0
        self._rate, self._relative = rate, relative
        # The rates before the schedule, by site.
        self._base_rates = {site.name: site.rate for site in self.sites}
        if relative and not any(self._base_rates.values()):
            raise ValueError(f"relative must be False where all rates are 0, got {relative} for {self._names()}")
        self._rates_at(0)  # raises before anything is changed
        self._convert = convert
        self._prepare_sites()
        self.set_step(0)

    def step(self) -> None:
        """Set the rates of the next step."""
        self.set_step(self.last_step + 1)

    def set_step(self, step: int) -> None:
        """Set the rates of any step; if one of them is out of range, all rates stay."""
        rates = self._rates_at(step)
        self.last_step: int = step
        for site, rate in zip(self.sites, rates, strict=True):
            site.set_rate(rate)

    def get_last_rate(self) -> dict[str, float]:
        """The rates of the last step, by the names of sites."""
        return {site.name: site.rate for site in self.sites}

    def state_dict(self) -> dict[str, Any]:
        """The step, and the rates before the schedule; not the function `rate`."""
        return {"step": self.last_step, "base_rates": dict(self._base_rates)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state_dict` was called: set the rates of its step.

        Raises:
            ValueError: the state is of other sites.
        """
        saved = state["base_rates"]
        if saved.keys() != self._base_rates.keys():
            raise ValueError(f"state must be of the sites {self._names()}, got one of {', '.join(saved)}")
        self._base_rates = dict(saved)
        self._prepare_sites()
        self.set_step(state["step"])

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__}({self._rate}, relative={self._relative}), step {self.last_step}"]
        lines += [f"  {site} {self._base_rates[site.name]:g} -> {site.rate:g}" for site in self.sites]
        if self.others:
            lines.append(f"  not chosen: {', '.join(f'{site.name} at {site.rate:g}' for site in self.others)}")
        return "\n".join(lines)

    def _prepare_sites(self) -> None:
        """Let compiled code follow the rates that will move; a dropout at a constant rate of 0 costs it nothing."""
        for site in self.sites:
            if self._relative and not self._base_rates[site.name]:
                continue
            if self._convert and site.is_layer:  # a module that is no layer may be the whole model
                convert_modules(site.module)
            if isinstance(site.module, DynamicRate):
                site.module.mark_rate_dynamic()

    def _rates_at(self, step: int) -> list[float]:
        value: Any = self._rate(step)
        try:
            value = float(value)
        except (TypeError, ValueError):
            raise TypeError(f"rate must return a number, got {value!r} at step {step}") from None
        rates = [value * self._base_rates[site.name] if self._relative else value for site in self.sites]
        for site, rate in zip(self.sites, rates, strict=True):
            if not 0 <= rate <= 1:
                factor = f", {value:g} times {self._base_rates[site.name]:g}," if self._relative else ""
                raise ValueError(f"rate must give rates in [0, 1], got {rate:g}{factor} at step {step} for {site}")
        return rates

    def _names(self) -> str:
        return ", ".join(self._base_rates)
