"""A support vector machine that tells malignant from benign tumours (569 patients, 30 measurements each).

By hand: `python svm.py`.
"""

from __future__ import annotations

from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import StratifiedKFold, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

import tuneyard


def main() -> None:
    config = tuneyard.parameters(C=1.0, gamma=0.01)
    measurements, benign = load_breast_cancer(return_X_y=True)
    model = make_pipeline(StandardScaler(), SVC(C=config["C"], gamma=config["gamma"]))
    folds = StratifiedKFold(n_splits=5, shuffle=True, random_state=0)
    scores = cross_validate(model, measurements, 1 - benign, cv=folds, scoring=("f1", "accuracy"))
    tuneyard.report(f1=scores["test_f1"].mean(), accuracy=scores["test_accuracy"].mean())


if __name__ == "__main__":
    main()
