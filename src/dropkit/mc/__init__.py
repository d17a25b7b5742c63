"""Monte Carlo dropout: the uncertainty of a model's predictions, from many passes with dropout left on."""

from dropkit.mc.predict import predict
from dropkit.mc.prediction import ClassPrediction, Prediction, ValuePrediction
from dropkit.mc.sampling import NothingToSample, sampling

__all__ = ["ClassPrediction", "NothingToSample", "Prediction", "ValuePrediction", "predict", "sampling"]
