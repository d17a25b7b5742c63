"""Write the table of the measures of uncertainty in monte-carlo.md from their registry."""

from pathlib import Path

from dropkit.mc.measures import ClassMeasures, Measure, ValueMeasures, measures_of

PAGE = Path(__file__).parent / "monte-carlo.md"
BEGIN, END = "<!-- measures: written by docs/write_measures.py -->\n", "<!-- end of measures -->\n"


def table() -> str:
    """The measures of classes, then those that values have alone."""
    rows = [*measures_of(ClassMeasures).values()]
    rows += [measure for name, measure in measures_of(ValueMeasures).items() if name not in measures_of(ClassMeasures)]
    head = "| measure | what it is | unit | more uncertain if | standard error |\n|---|---|---|---|---|\n"
    return head + "".join(_row(measure) for measure in rows)


def _row(measure: Measure) -> str:
    direction = {True: "higher", False: "lower", None: "-"}[measure.higher_is_uncertain]
    has_error = "no" if measure.standard_error is None else "yes"
    return f"| `{measure.name}` | {measure.summary} | {measure.unit} | {direction} | {has_error} |\n"


if __name__ == "__main__":
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    PAGE.write_text(before + BEGIN + table() + END + rest.partition(END)[2], encoding="utf-8")
