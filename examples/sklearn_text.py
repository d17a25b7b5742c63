"""Classify texts in a Pipeline, with a rate that a grid search chooses, and list those that the model is least sure of.

Prints the rate, the accuracy, and the table of the least certain texts: those that speak of both topics.
"""

import random

from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from dropkit.mc import MCClassifier

WORDS = {
    "cooking": ["salt", "oven", "bread", "onion", "butter", "soup"],
    "sailing": ["wind", "mast", "harbour", "rope", "wave", "anchor"],
}
generator = random.Random(0)


def text(*topics: str) -> str:
    return " ".join(generator.choice(WORDS[topic]) for topic in topics for _ in range(8 // len(topics)))


topics = ["cooking", "sailing"] * 60
texts = [text(topic) for topic in topics]
model = make_pipeline(TfidfVectorizer(), MCClassifier(hidden=(32,), epochs=20, random_state=0))
search = GridSearchCV(model, {"mcclassifier__p": [0.1, 0.3]}, scoring="neg_log_loss", cv=2).fit(texts, topics)
print("rate", search.best_params_["mcclassifier__p"])

new = [*(text(topic) for topic in topics), *(text("cooking", "sailing") for _ in range(5))]
vectorizer, classifier = search.best_estimator_
print("accuracy", search.best_estimator_.score(new[:120], topics))
print(classifier.predict_mc(vectorizer.transform(new)))
