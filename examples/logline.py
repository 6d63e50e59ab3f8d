"""A plain script that knows nothing of Tuneyard: arguments in, log lines out.

It tells from which of three growers a wine comes (178 wines, 13 measurements each) by those most like it. By hand:
`python logline.py --neighbours 5 --weights distance --scaling standard`.
"""

from __future__ import annotations

import argparse

from sklearn.datasets import load_wine
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, MinMaxScaler, StandardScaler

SCALINGS = {"none": FunctionTransformer, "minmax": MinMaxScaler, "standard": StandardScaler}


def main() -> None:
    parser = argparse.ArgumentParser(description="Tell wines apart.")
    parser.add_argument("--neighbours", type=int, default=5)
    parser.add_argument("--weights", choices=["uniform", "distance"], default="uniform")
    parser.add_argument("--scaling", choices=list(SCALINGS), default="none")
    options = parser.parse_args()
    wines, growers = load_wine(return_X_y=True)
    trained, tested, trained_growers, tested_growers = train_test_split(
        wines, growers, test_size=72, stratify=growers, random_state=0
    )
    model = make_pipeline(
        SCALINGS[options.scaling](), KNeighborsClassifier(n_neighbors=options.neighbours, weights=options.weights)
    )
    print(f"training on {len(trained)} wines")
    model.fit(trained, trained_growers)
    print(f"test accuracy: {model.score(tested, tested_growers):.4f}")


if __name__ == "__main__":
    main()
