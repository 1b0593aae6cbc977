"""Writes tests/fixtures/metrics.json: scikit-learn's figures for the metrics of src/eval.

    pip install scikit-learn==1.9.1 numpy==2.4.6
    python tests/reference/metrics.py
"""

import json
import pathlib

import numpy as np
from sklearn import metrics

CLASSES = 6  # `None` and five relations
ABSENT_IN_GOLD = 5
NEVER_PREDICTED = 4

rng = np.random.default_rng(20231203)
gold = rng.choice(CLASSES - 1, size=90, p=[0.5, 0.2, 0.15, 0.1, 0.05])
logits = rng.normal(size=(len(gold), CLASSES))
logits[np.arange(len(gold)), gold] += 1.2
logits[:, NEVER_PREDICTED] -= 9
probabilities = np.exp(logits)
probabilities /= probabilities.sum(axis=1, keepdims=True)
probabilities = probabilities.astype(np.float32)
# A sure mistake: scikit-learn raises the probability to the resolution of the type.
sure = np.zeros(CLASSES, dtype=np.float32)
sure[2] = 1
gold[0] = 1
probabilities[0] = sure

predicted = probabilities.argmax(axis=1)
relations = list(range(1, CLASSES))
occurring = sorted(set(gold.tolist()) - {0})
assert ABSENT_IN_GOLD not in gold and ABSENT_IN_GOLD in predicted
assert NEVER_PREDICTED in gold and NEVER_PREDICTED not in predicted


def scores(labels, average):
    return metrics.precision_recall_fscore_support(
        gold, predicted, labels=labels, average=average, zero_division=0
    )


# Scores with many ties, for the rank statistic.
score = np.round(rng.normal(size=60), 1)
positive = rng.random(60) < 1 / (1 + np.exp(-score))

fixture = {
    "predictions": [
        {"id": f"i{i}", "label": int(y), "probabilities": [float(v) for v in p]}
        for i, (y, p) in enumerate(zip(gold, probabilities))
    ],
    "auroc": {
        "scores": score.tolist(),
        "positive": positive.tolist(),
        "expected": float(metrics.roc_auc_score(positive, score)),
    },
    "expected": {
        "micro": [float(v) for v in scores(relations, "micro")[:3]],
        "macro_f1": float(scores(occurring, "macro")[2]),
        "per_class": [row.tolist() for row in scores(list(range(CLASSES)), None)],
        "accuracy": float(metrics.accuracy_score(gold, predicted)),
        "log_loss": float(metrics.log_loss(gold, probabilities, labels=list(range(CLASSES)))),
        "confusion": metrics.confusion_matrix(
            gold, predicted, labels=list(range(CLASSES))
        ).tolist(),
    },
}
path = pathlib.Path(__file__).parent.parent / "fixtures" / "metrics.json"
path.write_text(json.dumps(fixture) + "\n")
