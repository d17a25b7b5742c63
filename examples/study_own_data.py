"""Does dropout help on the data in my file, and at which rate?

Run it with the path of your own table and the name of the column to predict; without, it writes one to try, the breast
tumours of scikit-learn (569 rows, 30 columns of measurements, 2 classes):

python examples/study_own_data.py [TABLE.csv COLUMN]
"""

import sys
import tempfile
from pathlib import Path

from sklearn.datasets import load_breast_cancer
from torch import nn

import dropkit


def example_table():
    """Write a table to a temporary folder; its last column is the class."""
    data = load_breast_cancer()
    file = Path(tempfile.mkdtemp(), "tumours.csv")
    names = [*(name.replace(" ", "_") for name in data.feature_names), "kind"]
    rows = [[*map(str, row), data.target_names[label]] for row, label in zip(data.data, data.target, strict=True)]
    file.write_text("\n".join(map(",".join, [names, *rows])) + "\n")
    return str(file), "kind"


file, column = sys.argv[1:] or example_table()
data = dropkit.studies.read(f"csv:{file}:{column}")


def network():
    columns, classes = data.inputs.shape[1], len(data.classes)
    return nn.Sequential(nn.Linear(columns, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, classes))


print(dropkit.study(network, data, p=[0.2, 0.5], metric="nll", seeds=5, epochs=20, samples=0))
