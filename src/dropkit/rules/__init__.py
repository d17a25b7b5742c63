"""Every misuse that dropkit knows, one file each. A new rule is its file and a line here.

Families: 1xx active when it must not be, 2xx does nothing, 3xx wrong number, 4xx wrong place or kind.
"""

from dropkit.rules import (
    functional_dropout_ignores_mode,
)
from dropkit.rules.rule import Default, Example, Hit, Rule

RULES: tuple[Rule, ...] = (functional_dropout_ignores_mode.RULE,)

__all__ = ["RULES", "Default", "Example", "Hit", "Rule"]
