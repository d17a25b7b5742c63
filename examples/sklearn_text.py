"""Classify texts in a Pipeline, and list those that the model is least sure of.

Prints the accuracy, and the table of the least certain texts: those that speak of both topics.
"""

import random

from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
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
model = make_pipeline(
    TfidfVectorizer(), TruncatedSVD(8, random_state=0), MCClassifier(hidden=(32,), epochs=30, random_state=0)
).fit(texts, topics)

new = [*(text(topic) for topic in topics), *(text("cooking", "sailing") for _ in range(5))]
print("accuracy", model.score(new[:120], topics))
print(model[-1].predict_mc(model[:-1].transform(new)))
