"""Gradient-boosted trees that read handwritten digits: 1,797 images of 8 x 8 pixels, ten classes.

By hand: `python train_xgboost.py`. (A file xgboost.py would be imported in place of the library.)
"""

from __future__ import annotations

from typing import Any

import xgboost
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import tuneyard


class Report(xgboost.callback.TrainingCallback):
    """Reports the accuracy on the held-out images after each round."""

    def after_iteration(self, model: Any, epoch: int, evals_log: dict[str, Any]) -> bool:
        """Called by XGBoost; True would end the training."""
        tuneyard.report(step=epoch, accuracy=1 - evals_log["held_out"]["merror"][-1])
        return False


def main() -> None:
    config = tuneyard.parameters(
        max_depth=4, min_child_weight=1.0, eta=0.3, n_estimators=100, colsample_bytree=0.8, subsample=0.8
    )
    rounds = config.pop("n_estimators")
    images, labels = load_digits(return_X_y=True)
    trained, tested, trained_labels, tested_labels = train_test_split(
        images, labels, test_size=450, stratify=labels, random_state=0
    )
    xgboost.train(
        {"objective": "multi:softmax", "num_class": 10, "eval_metric": "merror", "seed": 0, **config},
        xgboost.DMatrix(trained, trained_labels),
        num_boost_round=rounds,
        evals=[(xgboost.DMatrix(tested, tested_labels), "held_out")],
        callbacks=[Report()],
        verbose_eval=False,
    )


if __name__ == "__main__":
    main()
