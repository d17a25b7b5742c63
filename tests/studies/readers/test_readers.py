"""Readers: which data a target gives, and the line that says what is wrong with it."""

import csv
import gzip
import io
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy
import pytest
import torch
from helpers.data_files import PIXELS, X, Y, idx, png
from helpers.torchvision_import import import_torchvision
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dropkit.studies import Recipe
from dropkit.studies.networks import networks_for
from dropkit.studies.readers import READERS, read, recipe

TABLE = "a,b,kind,class\n" + "".join(f"{i},{i / 4},{'uvw'[i % 3]},{'yes' if i % 2 else 'no'}\n" for i in range(12))
in_a_folder = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refusal(target, size=None):
    """The error of a target, without the target."""
    with pytest.raises(ValueError, match=r"\A[^\n]+\Z") as caught:
        read(target, size)
    text = str(caught.value)
    assert text.startswith(f"{target}: ")
    return text.removeprefix(f"{target}: ")


def images(root, sizes=((4, 5),), mode="uint8"):
    """Write 12 images of two classes, a and b."""
    for i in range(12):
        path = root / "ab"[i % 2] / f"{i:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        width, height = sizes[i % len(sizes)]
        path.write_bytes(png(numpy.full((height, width), 10 * i, mode)))


# Arrays.


@pytest.mark.parametrize(
    ("inputs", "targets"),
    [("x", "y"), ("X", "Y"), ("inputs", "targets"), ("data", "labels"), ("images", "label"), ("features", "target")],
)
def test_inputs_and_targets_have_their_usual_names(inputs, targets):
    """The names of two arrays say which has the inputs."""
    numpy.savez("t.npz", **{targets: Y, inputs: X})

    assert torch.equal(read("t.npz").inputs, torch.tensor(X))


@pytest.mark.parametrize("form", ["x_{}", "{}_x", "X{}", "x-{}"])
@pytest.mark.parametrize("names", [("train", "val", "test"), ("training", "validation", "testing")])
def test_parts_are_kept(form, names):
    """Arrays of three parts give the part of each example."""
    parts = [form.format(name) for name in names]
    arrays = {name: X[: 8 - i] for i, name in enumerate(parts)}
    targets = {name.replace("x", "y").replace("X", "Y"): Y[: 8 - i] for i, name in enumerate(parts)}
    numpy.savez("t.npz", **arrays, **targets)

    data = read("t.npz")

    assert data.parts is not None
    assert data.parts.bincount().tolist() == [8, 7, 6]


ARRAYS = {
    "float64": (X.astype("float64"), torch.float32),
    "float16": (X.astype("float16"), torch.float32),
    "big endian": (X.astype(">f4"), torch.float32),
    "bytes": (PIXELS, torch.uint8),
    "int32": (PIXELS.astype("int32"), torch.int64),
    "Fortran order": (numpy.asfortranarray(X), torch.float32),
    "negative strides": (X[:, ::-1], torch.float32),
}


@pytest.mark.parametrize(("array", "dtype"), ARRAYS.values(), ids=ARRAYS)
def test_arrays_of_any_numbers_are_read(array, dtype):
    """Floats become float32, bytes stay bytes, other integers become int64; the order in memory does not matter."""
    numpy.savez("t.npz", x=array, y=Y)

    inputs = read("t.npz").inputs

    assert inputs.dtype == dtype
    assert numpy.array_equal(inputs.numpy(), numpy.ascontiguousarray(array).astype(inputs.numpy().dtype))


def test_the_task_can_be_stated():
    """Integers are classes, unless :regression follows; whole floats are values, unless :classification does."""
    numpy.savez("i.npz", x=X, y=Y)
    numpy.savez("f.npz", x=X, y=Y.astype("float32"))

    tasks = [read(target).task for target in ("i.npz", "i.npz:regression", "f.npz", "f.npz:classification")]

    assert tasks == ["classification", "regression", "regression", "classification"]


def test_targets_in_a_column_are_a_vector_and_texts_are_classes():
    """Targets of shape (N, 1) have shape (N,), and different texts are different classes."""
    numpy.savez("c.npz", x=X, y=Y[:, None])
    numpy.savez("t.npz", x=X, y=numpy.array(["cat", "ant", "bee"])[Y])

    assert torch.equal(read("c.npz").targets, torch.tensor(Y))
    assert read("t.npz").classes == ("ant", "bee", "cat")
    assert read("t.npz").targets.tolist() == [2, 0, 1] * 4


def test_pairs_of_a_pt_file_are_inputs_and_targets():
    """A file of torch may hold a pair instead of names."""
    torch.save((torch.tensor(X), torch.tensor(Y)), "t.pt")

    assert torch.equal(read("t.pt").targets, torch.tensor(Y))


WRONG_ARRAYS = {
    "name": ({"x": X, "lables": Y}, "got 'lables'; did you mean labels?"),
    "no targets": ({"x": X}, "both inputs and targets of each part"),
    "lengths": ({"x": X, "y": Y[:-1]}, "targets must be one for each of 12 inputs, got 11 targets"),
    "NaN": ({"x": X * numpy.nan, "y": Y}, "inputs must be finite numbers, got 36 that are NaN or infinite"),
    "objects": ({"x": numpy.array([{}] * 12), "y": Y}, "it holds objects"),
    "text": ({"x": numpy.array(["a"] * 12), "y": Y}, "inputs must be an array of numbers"),
    "complex": ({"x": X * 1j, "y": Y}, "inputs must be an array of numbers"),
    "huge class": ({"x": X, "y": Y + 2**60}, "for values give floating-point numbers"),
    "few": ({"x": X[:3], "y": Y[:3]}, "inputs must be at least 10 examples, got 3"),
    "scalar": ({"x": numpy.float32(1), "y": Y}, "inputs must be an array with a first dimension of examples"),
    "twice": ({"x": X, "X": X, "y": Y}, "names must be one for inputs, got 'X' too"),
    "nothing": ({}, "arrays must be x and y, or x_train, y_train, x_test and y_test, got none"),
}


@pytest.mark.parametrize(("arrays", "message"), WRONG_ARRAYS.values(), ids=WRONG_ARRAYS)
def test_wrong_arrays_are_refused(arrays, message):
    """The line names the array and what is wrong with it."""
    numpy.savez("t.npz", **arrays)

    assert message in refusal("t.npz")


def test_a_file_of_torch_with_code_is_refused():
    """Nothing in the file is run: a module is refused, as is a view that is larger than its file."""
    torch.save(torch.nn.Linear(2, 2), "m.pt")
    torch.save({"x": torch.zeros(1).expand(10**11), "y": torch.zeros(1).expand(10**11)}, "e.pt")
    torch.save({"x": torch.tensor(X), "y": torch.tensor(Y)}, "l.pt", _use_new_zipfile_serialization=False)

    assert "it holds objects, or is damaged" in refusal("m.pt")
    assert "saved after .contiguous()" in refusal("e.pt")
    assert "not a zip file" in refusal("l.pt")


def test_headers_and_archives_that_claim_too_much_allocate_nothing():
    """A header of 10^18 numbers, an archive whose sizes are wrong, and one of 2 GiB are refused."""
    header = io.BytesIO()
    numpy.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (10**18,)})
    with open("x.npy", "wb") as file:
        file.write(header.getvalue() + bytes(100))
    numpy.save("y.npy", Y)
    with open("l.idx", "wb") as file:
        file.write(bytes([0, 0, 8, 4]) + b"\xff" * 16 + bytes(100))
    with gzip.open("l.idx.gz", "wb") as file:
        file.write(bytes([0, 0, 8, 4]) + b"\xff" * 16 + bytes(100))

    assert "damaged: 100 bytes for shape (1000000000000000000,) of float32" in refusal("npy:x.npy:y.npy")
    for name in ("l.idx", "l.idx.gz"):
        wanted = (
            f"{name} must be as large as its header says, 4294967295 x 4294967295 x 4294967295 x 4294967295 numbers"
        )
        assert wanted in refusal(f"idx:{name}:{name}")


@in_a_folder
@given(st.data())
def test_any_arrays_come_back(draw):
    """What is written to a .npz file is read, for any shape and dtype."""
    shape = draw.draw(st.lists(st.integers(1, 4), max_size=3))
    dtype = draw.draw(st.sampled_from(["uint8", "int16", "int64", "float32"]))
    x = numpy.arange(12 * numpy.prod(shape, dtype=int)).reshape(12, *shape).astype(dtype)
    draw.draw(st.sampled_from([numpy.savez, numpy.savez_compressed]))("t.npz", x=x, y=Y)

    assert numpy.array_equal(read("t.npz").inputs.numpy(), x)


# Tables.


def test_columns_of_texts_become_columns_of_0_and_1(folder):
    """Numbers stay as they are; each text gets a column, in alphabetical order."""
    (folder / "t.csv").write_text(TABLE)

    data = read("csv:t.csv:class")

    assert data.classes == ("no", "yes")
    assert data.inputs[5].tolist() == [5, 1.25, 0, 0, 1]
    assert data.targets.tolist() == [0, 1] * 6


@pytest.mark.parametrize(
    ("name", "task"), [("few", "classification"), ("many", "regression"), ("fractions", "regression")]
)
def test_numbers_are_classes_if_they_are_few_and_whole(folder, name, task):
    """The choice is in the note, with how to choose otherwise, which is followed."""
    rows = [f"{i % 3},{i},{i % 3 / 2}" for i in range(60)]
    (folder / "t.csv").write_text("\n".join(["few,many,fractions", *rows]))
    other = "regression" if task == "classification" else "classification"

    data = read(f"csv:t.csv:{name}")

    assert data.task == task
    assert f"for {other} add :{other} to the target" in data.note
    assert read(f"csv:t.csv:{name}:regression").task == "regression"
    assert read(f"csv:t.csv:{name}:regression").note == ""


@pytest.mark.parametrize("text", [TABLE.replace(",", ";"), TABLE.replace(",", "\t"), "\ufeff" + TABLE,
                                  TABLE.replace("\n", "\r\n"), TABLE.replace("\n", "\n\n"), TABLE.replace(",", " , ")],
                         ids=["semicolons", "tabs", "byte order mark", "CRLF", "empty lines", "spaces"])  # fmt: skip
def test_tables_of_other_programs_are_read(folder, text):
    """Separators, line ends and marks of other programs make no difference."""
    (folder / "t.csv").write_text(TABLE)
    (folder / "o.csv").write_bytes(text.encode())

    assert torch.equal(read("csv:o.csv:class").inputs, read("csv:t.csv:class").inputs)


def test_a_table_without_names_has_numbered_columns(folder):
    """Columns are 1, 2, 3 where the first line has data."""
    (folder / "t.csv").write_text(TABLE.partition("\n")[2])

    assert read("csv:t.csv:4").inputs.shape == (12, 5)


def test_the_line_numbers_that_pandas_writes_are_no_input(folder):
    """A first column without a name that counts from 0 is left out."""
    lines = TABLE.splitlines()
    (folder / "t.csv").write_text("\n".join(["," + lines[0], *(f"{i},{line}" for i, line in enumerate(lines[1:]))]))

    assert read("csv:t.csv:class").inputs.shape == (12, 5)


LINES = TABLE.splitlines()
WRONG_TABLES = {
    "target": (TABLE, "clas", "one of the columns a, b, kind, class, got 'clas'; did you mean class?"),
    "missing": (TABLE.replace("1.25", ""), "class", "line 7, column 'b' must be a value in every line, got ''"),
    "NA": (TABLE.replace("1.25", "NA"), "class", "line 7, column 'b' must be a value in every line, got 'NA'"),
    "NaN": (TABLE.replace("1.25", "nan"), "class", "line 7, column 'b' must be a value in every line, got 'nan'"),
    "infinity": (TABLE.replace("1.25", "inf"), "class", "line 7, column 'b' must be a finite number"),
    "text": (TABLE.replace("1.25", "1,5"), "class", "line 7 must be 4 cells, as many as columns, got 5"),
    "mixed": (TABLE.replace("1.25", "low"), "class", "line 7, column 'b' must be a finite number, as in the lines"),
    "number": (TABLE.replace("5,1.25,w", "5,1.25,3"), "class", "line 7, column 'kind' must be text"),
    "empty": ("", "class", "the file must be a table with a line of names, got nothing"),
    "no lines": (LINES[0], "class", "the file must be a table with lines after the names, got none"),
    "repeated": (TABLE.replace("a,b", "a,a"), "class", "line 1 must be different names of columns, got ['a'] twice"),
    "one column": ("class\n" + "1\n" * 12, "class", "columns must be the target and at least one input"),
    "zeros": (TABLE + "\0", "class", "it must be text, got zero bytes"),
    "quotes": (TABLE + '"', "class", "it must be a table, got: unexpected end of data"),
    "large": (TABLE.replace("1.25", "1e300"), "class", "column 'b' must be within single precision"),
    "names": ("n,class\n" + "".join(f"name {i},{i % 2}\n" for i in range(101)), "class", "got 101 different texts"),
    "every class": (TABLE, "a:classification", "column 'a' must be classes, with two lines or more for most"),
    "values": (TABLE, "class:regression", "column 'class' must be numbers for regression, got text"),
}


@pytest.mark.parametrize(("text", "target", "message"), WRONG_TABLES.values(), ids=WRONG_TABLES)
def test_wrong_tables_are_refused(folder, text, target, message):
    """The line names the line and the column."""
    (folder / "t.csv").write_text(text)

    assert message in refusal(f"csv:t.csv:{target}")


def test_text_in_another_encoding_is_refused(folder):
    """Only UTF-8 is read."""
    (folder / "t.csv").write_bytes(TABLE.replace("yes", "jä").encode("latin-1"))

    assert "it must be text in UTF-8" in refusal("csv:t.csv:class")


@in_a_folder
@given(cells=st.lists(st.text("aé,;\"'\n\r\t |=", min_size=1, max_size=5), min_size=12, max_size=12))
def test_any_text_is_a_category(folder, cells):
    """Cells with separators, quotes and line ends come back as they are, but for spaces around them."""
    texts = [f"a{cell}b" for cell in cells]
    with (folder / "t.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["text", "class"], *([text, i % 2] for i, text in enumerate(texts))])

    inputs = read("csv:t.csv:class").inputs

    assert inputs.argmax(1).tolist() == [sorted(set(texts)).index(text) for text in texts]


# Images.


def test_folders_are_classes(folder):
    """Grey images have one channel, and their sub-folder is their class."""
    images(folder / "i")

    data = read("i")

    assert data.inputs.shape == (12, 1, 5, 4)
    assert data.inputs.flatten(1)[:, 0].tolist() == [*range(0, 120, 20), *range(10, 120, 20)]
    assert data.classes == ("a", "b")
    assert data.targets.tolist() == [0] * 6 + [1] * 6


def test_folders_of_parts_are_parts(folder):
    """Folders named train, val and test above those of the classes are the parts."""
    for name in ("train", "val", "test"):
        images(folder / "i" / name)

    assert read("i").parts.tolist() == [0] * 12 + [1] * 12 + [2] * 12


def test_images_are_resized_to_one_size_only_on_request(folder):
    """Images of several sizes are refused, unless a size is given."""
    images(folder / "i", sizes=((4, 5), (4, 5), (8, 8)))

    assert "a/02.png must be as large as a/00.png, 4 x 5 pixels, unless a size" in refusal("i")
    assert read("i", size=6).inputs.shape == (12, 1, 6, 6)


def test_a_coloured_image_gives_all_of_them_channels(folder):
    """Grey ones beside it have three equal channels."""
    images(folder / "i")
    (folder / "i/a/00.png").write_bytes(png(numpy.full((5, 4, 3), (1, 2, 3), "uint8")))

    inputs = read("i").inputs

    assert inputs[0, :, 0, 0].tolist() == [1, 2, 3]
    assert inputs[1, :, 0, 0].tolist() == [20, 20, 20]


def test_what_is_no_image_is_refused(folder):
    """Files of other kinds, empty folders and huge images are named."""
    images(folder / "i")
    for name, prepare, message in (
        ("a/n.txt", lambda path: path.write_text("n"), "a/n.txt must be a regular file named .png"),
        ("a/n.png", lambda path: path.write_text("n"), "a/n.png must be a PNG, JPEG"),
        ("a/sub.png", lambda path: path.mkdir(), "a/sub.png must be a regular file named .png"),
        ("n.png", lambda path: path.write_text("n"), "n.png must be a folder of a class, got a file"),
        ("c", lambda path: path.mkdir(), "c must be a folder of images, got an empty one"),
        ("a/l.png", lambda path: path.write_bytes(png(numpy.zeros((6000, 6000), bool))), "6000 x 6000 pixels"),
    ):
        path = folder / "i" / name
        prepare(path)
        assert message in refusal("i")
        path.rmdir() if path.is_dir() else path.unlink()
    assert read("i").task == "classification"


# IDX.


def test_a_folder_of_idx_files_has_its_parts(folder):
    """MNIST's own names say the part, compressed or not."""
    for name, count in (("train", 12), ("t10k", 11)):
        (folder / f"{name}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(PIXELS[:count])))
        (folder / f"{name}-labels-idx1-ubyte").write_bytes(idx(Y[:count].astype("uint8")))

    data = read(".")

    assert data.inputs.shape == (23, 1, 5, 4)
    assert data.parts.bincount().tolist() == [12, 0, 11]


@pytest.mark.parametrize(("code", "dtype"), [(8, "u1"), (9, "i1"), (11, "i2"), (12, "i4"), (13, "f4"), (14, "f8")])
def test_all_types_of_idx_are_read(folder, code, dtype):
    """The six types of the format are read, whatever the byte order of the machine."""
    (folder / "i").write_bytes(idx((X * 50 + 100).astype(dtype), code))
    (folder / "l").write_bytes(idx(Y.astype("uint8")))

    assert numpy.allclose(read("idx:i:l").inputs.numpy(), (X * 50 + 100).astype(dtype), rtol=1e-6)


def test_labels_that_do_not_match_are_refused(folder):
    """Their numbers, dimensions and parts must fit."""
    (folder / "i").write_bytes(idx(PIXELS))
    (folder / "l").write_bytes(idx(Y[:-1].astype("uint8")))
    (folder / "train-images-idx3-ubyte").write_bytes(idx(PIXELS))

    assert "l must be one label for each of 12 images, got 11 labels" in refusal("idx:i:l")
    assert "l must be images, of at least 2 dimensions, got 1" in refusal("idx:l:i")
    assert "both images and labels of each part, got no ['labels'] for training" in refusal(".")


# Built in, and other packages.


def test_text_has_the_next_character_as_target():
    """Each target is the input one place later, and nothing is random."""
    data = read("text")

    assert torch.equal(data.inputs[:, 1:], data.targets[:, :-1])
    assert torch.equal(data.inputs[1:, 0], data.targets[:-1, -1])
    assert data.classes == tuple(sorted(data.classes))
    assert torch.equal(read("text").inputs, data.inputs)


@pytest.mark.parametrize("target", ["digits", "text", "csv:t.csv:class", "csv:t.csv:b", "i"])
def test_networks_fit_what_is_read(folder, target):
    """Where networks fit the data, their outputs fit its targets."""
    (folder / "t.csv").write_text(TABLE)
    images(folder / "i", sizes=((5, 5),))
    data = read(target)

    networks = networks_for(data)

    assert networks
    for make in networks.values():
        outputs = make()(data.example)
        assert outputs.shape[:-1] == data.targets[:2].shape[: outputs.dim() - 1]
        assert outputs.shape[-1] == (len(data.classes) or 1)


def test_torchvision_reads_what_was_downloaded(folder):
    """A dataset in the folder is read in its parts; without it the line says how to download it."""
    import_torchvision()
    raw = folder / "data/MNIST/raw"
    assert "torchvision.datasets.MNIST(root='data', train=True, download=True)" in refusal("torchvision:MNIST")
    raw.mkdir(parents=True)
    for name, count in (("train", 12), ("t10k", 11)):
        (raw / f"{name}-images-idx3-ubyte").write_bytes(idx(PIXELS[:count]))
        (raw / f"{name}-labels-idx1-ubyte").write_bytes(idx(Y[:count].astype("uint8")))

    data = read("torchvision:MNIST")

    assert torch.equal(data.inputs[:12, 0], torch.tensor(PIXELS))
    assert data.parts.bincount().tolist() == [12, 0, 11]
    assert "did you mean MNIST?" in refusal("torchvision:Mnist")


class Features(dict):
    """Columns of a dataset: the names of classes, or None."""

    def __init__(self, **columns):
        super().__init__(
            {name: SimpleNamespace(**({"names": names} if names else {})) for name, names in columns.items()}
        )


class Split(dict):
    """A part of a dataset: its columns, and what they are."""

    def __init__(self, features, **columns):
        super().__init__(columns)
        self.features = features


@pytest.fixture
def hub(monkeypatch):
    """Stand-ins for datasets and huggingface_hub that have one dataset, and read it only without a network."""
    constants = ModuleType("huggingface_hub.constants")
    constants.HF_HUB_OFFLINE = False
    config = SimpleNamespace(HF_HUB_OFFLINE=False, HF_DATASETS_OFFLINE=False)
    features = Features(length=None, kind=["short", "long"])
    splits = {part: Split(features, length=[1.0, 2.5] * 10, kind=[0, 1] * 10) for part in ("train", "test")}

    def load(name):
        assert config.HF_HUB_OFFLINE
        assert config.HF_DATASETS_OFFLINE
        assert constants.HF_HUB_OFFLINE
        if name != "me/lengths":
            raise ConnectionError(f"Couldn't reach {name!r} on the Hub (offline)")
        return splits

    module = SimpleNamespace(config=config, load_dataset=load)
    for name, value in (("datasets", module), ("huggingface_hub.constants", constants)):
        monkeypatch.setitem(sys.modules, name, value)
    return config


@pytest.mark.parametrize("target", ["hf:me/lengths", "hf:me/lengths:length:kind"])
def test_a_cached_dataset_of_hugging_face_is_read(hub, target):
    """Nothing is fetched, the parts are kept, classes have their names, and a number is one feature."""
    data = read(target)

    assert data.inputs.shape == (40, 1)
    assert data.classes == ("short", "long")
    assert data.parts.bincount().tolist() == [20, 0, 20]
    assert not hub.HF_HUB_OFFLINE


def test_a_dataset_that_is_not_cached_is_refused_with_the_command_that_fetches_it(hub):
    assert "datasets.load_dataset('me/none') downloads it" in refusal("hf:me/none")
    assert "columns must be two of length, kind, got a, b" in refusal("hf:me/lengths:a:b")


@pytest.mark.parametrize(("target", "module", "message"), [
    ("hf:mnist", "datasets", "hf:mnist needs datasets: pip install datasets"),
    (
        "torchvision:MNIST",
        "torchvision.datasets",
        "torchvision:MNIST needs torchvision: pip install torchvision",
    ),
    ("t.npz", "numpy", 't.npz needs numpy: pip install "dropkit[study]"'),
    ("i", "PIL.Image", 'a folder of images needs pillow: pip install "dropkit[study]"'),
])  # fmt: skip
def test_a_missing_package_is_named_with_its_command(folder, monkeypatch, target, module, message):
    """The error says what pip installs."""
    images(folder / "i")
    monkeypatch.setitem(sys.modules, module, None)

    with pytest.raises(ImportError) as caught:
        read(target)

    assert str(caught.value) == message


@pytest.mark.parametrize(("target", "message"), [
    ("none.npz", "No such file or directory"),
    ("csv:none.csv:a", "none.csv: No such file or directory"),
    ("none", "there is no such file or folder; data must be digits, text, FILE.npz"),
    ("cvs:t.csv:a", "did you mean csv?"),
    ("/dev/null", "a file without a prefix must be named .npy"),
    ("idx:/dev/zero:/dev/zero", "/dev/zero: must be a regular file, got a device"),
    ("npy:x.npy", "data must be npy:INPUTS:TARGETS, got npy:x.npy"),
    ("text:x", "data must be text, for classification, got text:x"),
    ("", "there is no such file or folder"),
])  # fmt: skip
def test_targets_that_lead_nowhere_are_refused(target, message):
    """The line says what a target looks like."""
    assert message in refusal(target)


def test_every_reader_is_documented():
    """The page about data has each form; prefixes are the beginnings of the forms."""
    page = (Path(__file__).parents[3] / "docs/study-data.md").read_text()

    for prefix, reader in READERS.items():
        assert all(f"`{form}`" in page for form in reader.form.split(" or "))
        assert reader.form.startswith(prefix) or prefix in ("arrays", "folder")


@pytest.mark.parametrize("target", ["digits", "text"])
def test_built_in_data_has_a_recipe_that_fits(target):
    """Its fields are those of `Recipe`, and there are enough examples."""
    data = read(target)

    chosen = Recipe(**recipe(target, data))

    assert sum(chosen.sizes.counts(len(data))) <= len(data)
