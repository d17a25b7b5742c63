"""Damaged files: for every format, any damage gives one line that names the file, or the right data."""

from pathlib import Path

import pytest
from helpers.data_files import FORMATS, equal
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dropkit.studies.readers import read

formats = pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
# In bytes. The files themselves have at most 2,000.
MEMORY = 100 << 20
# Prime, so that in the quick tests the position of the bit takes every value, too.
STEP = 5


@pytest.fixture
def folder(tmp_path, monkeypatch, form):
    """The working folder, with the files of the format."""
    monkeypatch.chdir(tmp_path)
    form.write(tmp_path)
    return tmp_path


def outcome(form, folder, content, must_equal):
    """Read a damaged file and check what comes of it; return whether there was an error."""
    (folder / form.file).write_bytes(content)
    try:
        data = read(form.target)
    except ValueError as error:
        message = str(error)
    else:
        assert not must_equal or equal(data, form.expected)
        return False
    assert message.startswith(f"{form.target}: ")
    assert message.isprintable()
    return True


def peak_memory():
    """The most memory that this process had since `reset_peak`, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) << 10


@pytest.fixture
def _little_memory():
    """Fail the test if it takes much memory at any time."""
    if not Path("/proc/self/clear_refs").exists():
        yield
        return
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before = peak_memory()
    yield
    assert peak_memory() - before < MEMORY


@formats
@pytest.mark.usefixtures("folder")
def test_undamaged_files_are_read(form):
    """Every format gives the data that was written."""
    assert equal(read(form.target), form.expected)


@formats
@pytest.mark.usefixtures("_little_memory")
def test_truncated_files_are_refused(folder, form):
    """A file that ends early is an error; but a table may have fewer lines, and an image may lack its end mark."""
    for length in range(0, len(form.content), STEP):
        has_failed = outcome(form, folder, form.content[:length], must_equal=form.has_checksums)
        assert has_failed or form.file.endswith((".csv", ".png")), length


@formats
@pytest.mark.usefixtures("_little_memory")
def test_a_flipped_bit_is_an_error_or_changes_nothing(folder, form):
    """One wrong bit gives an error, or the right data where the format has checksums."""
    for position in range(0, len(form.content), STEP):
        flip(form, folder, position, position % 8)


@pytest.mark.long
@formats
@pytest.mark.usefixtures("_little_memory")
def test_any_flipped_bit_is_an_error_or_changes_nothing(folder, form):
    """The same for every bit of the file, and for every length that it is cut to."""
    for position in range(len(form.content)):
        outcome(form, folder, form.content[:position], must_equal=form.has_checksums)
        for bit in range(8):
            flip(form, folder, position, bit)


def flip(form, folder, position, bit):
    content = bytearray(form.content)
    content[position] ^= 1 << bit
    outcome(form, folder, bytes(content), must_equal=form.has_checksums)


edits = st.lists(st.tuples(st.integers(0, 1999), st.binary(min_size=1, max_size=8)), min_size=1, max_size=4)


@formats
@given(edits=edits, removed=st.integers(0, 30), appended=st.binary(max_size=20))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.usefixtures("_little_memory")
def test_several_changes_give_one_line_or_data(folder, form, edits, removed, appended):
    """Whatever bytes are overwritten, removed or added, there is data or one line."""
    content = bytearray(form.content)
    for position, new in edits:
        position %= len(content)
        content[position : position + len(new)] = new

    outcome(form, folder, bytes(content[removed:] + appended), must_equal=False)


@formats
def test_other_files_under_its_name_are_refused(folder, form):
    """Nothing, text, zeros, and files of the other formats are errors."""
    others = [other.content for other in FORMATS.values() if other.file.split(".")[1] != form.file.split(".")[1]]
    for content in (b"", b"hello there", bytes(1000), *others):
        assert outcome(form, folder, content, must_equal=True)
