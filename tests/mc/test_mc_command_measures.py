"""`dropkit mc --measures`: what is not computed is not shown, and a note says so."""

from helpers.mc_command import X, output, program, records

from dropkit import mc
from dropkit.mc.summary import Summary
from dropkit.mc.table import table

WORDS = ("net.py:net", "--data", "net.py:pair", "--measures", "basic")


def test_basic_measures_are_shown_without_errors(folder):
    """The table and the page have no column of errors, and the note."""
    table = output(*WORDS, "--html", "page.html")

    assert "± std. error" not in table
    assert "variation ratio" not in table
    assert "not computed: " in table
    assert "not computed: " in (folder / "page.html").read_text()


def test_records_have_what_was_computed(folder):
    """No measure is null, and the notes name the others."""
    for record in records(*WORDS):
        assert "variation_ratio" not in record
        assert record["entropy"] is not None
        assert record["standard_error"] == {}
        assert "variation_ratio" in record["notes"][-1]


def test_a_prediction_with_its_mean_alone_can_be_shown():
    """Nothing tells which inputs are less certain."""
    prediction = mc.predict(program()["net"](), X, 5, measures=["mean"], seed=0)

    assert "the first inputs" in table(Summary(prediction, None, None, 3), color=False)
