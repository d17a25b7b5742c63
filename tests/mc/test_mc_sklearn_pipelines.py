"""MCClassifier and MCRegressor in pipelines of tables and texts, with a grid search."""
# ruff: noqa: N806 (scikit-learn's X)

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from helpers.mc_estimators import predictions, quick, rows
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder

from dropkit.mc.sklearn import MCClassifier, MCRegressor


@pytest.mark.parametrize("make", [scipy.sparse.csr_matrix, scipy.sparse.coo_array])
@pytest.mark.parametrize("kind", [MCRegressor, MCClassifier])
def test_sparse_rows_are_rows(kind: Any, make: Any) -> None:
    """As `TfidfVectorizer` and `OneHotEncoder` return them: the numbers are those of the dense ones."""
    X, y = rows()
    X = X * (np.abs(X) > 0.5)

    dense, sparse = quick(kind).fit(X, y), quick(kind).fit(make(X), y)

    assert np.array_equal(predictions(dense, X), predictions(sparse, make(X)))


def test_texts_and_tables_go_through_a_pipeline_and_a_grid_search() -> None:
    """Sparse columns of words, and a frame of numbers and names with gaps; the best has the rate of the grid."""
    frame = pd.DataFrame({"town": ["Bonn", "Kiel"] * 20, "age": [np.nan, *range(39)], "text": ["salt", "wind"] * 20})
    table = ColumnTransformer(
        [("age", SimpleImputer(), ["age"]), ("town", OneHotEncoder(), ["town"]), ("text", TfidfVectorizer(), "text")]
    )
    for kind, y in ((MCClassifier, frame["town"]), (MCRegressor, frame["age"].fillna(0.0))):
        pipeline = Pipeline([("table", table), ("model", quick(kind, samples=5))])

        search = GridSearchCV(pipeline, {"model__p": [0.1, 0.3]}, cv=2, error_score="raise").fit(frame, y)

        assert search.best_estimator_["model"].p == search.best_params_["model__p"]
        assert np.array_equal(search.predict(frame), search.best_estimator_.predict(frame))
        assert search.best_estimator_["model"].n_features_in_ == 5
