"""Predict values of a table in a Pipeline, with a rate that a grid search chooses, and intervals that hold.

Prints the rate, and for held-out rows how many of the true values lie in their conformal 90 % intervals.
"""

import numpy as np
import torch
from sklearn.compose import ColumnTransformer
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from dropkit.mc import MCRegressor

generator = np.random.RandomState(0)
size = generator.uniform(30, 200, 600)
town = generator.choice(["Bonn", "Kiel", "Ulm"], 600)
price = 3 * size + 100 * (town == "Bonn") + generator.normal(0, 20, 600)
table = np.empty((600, 2), object)
table[:, 0], table[:, 1] = size, town

X, X_test, y, y_test = train_test_split(table, price, random_state=0)
X_train, X_held_out, y_train, y_held_out = train_test_split(X, y, random_state=0)

columns = ColumnTransformer([("town", OneHotEncoder(), [1])], remainder="passthrough")
model = make_pipeline(columns, MCRegressor(hidden=(32,), epochs=40, samples=20, random_state=0))
search = GridSearchCV(model, {"mcregressor__p": [0.05, 0.2]}, cv=2).fit(X_train, y_train)
print("rate", search.best_params_["mcregressor__p"], "score", round(search.score(X_test, y_test), 3))

prepare, regressor = search.best_estimator_[:-1], search.best_estimator_[-1]
conformal = regressor.predict_mc(prepare.transform(X_held_out)).conformal(torch.from_numpy(y_held_out), level=0.9)
low, high = conformal(regressor.predict_mc(prepare.transform(X_test)))
truth = torch.from_numpy(y_test)
print("held", int(((low <= truth) & (truth <= high)).sum()), "of", len(truth))
