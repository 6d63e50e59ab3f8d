"""What the parts of `bayesian` are worth: its regret without one, or with another in its place, beside its own.

| Variant | Instead |
|---|---|
| flat-prior | length-scales: any is as probable as any other |
| wide-prior | length-scales: those of Hvarfner et al. (2024), BoTorch's |
| fixed-prior | length-scales: Gamma(3, 6), which does not grow with the number of parameters |
| little-noise | a prior that takes trials for rather exact |
| one-start | hyperparameters are sought from little noise only |
| no-output-warp | values are always only shifted and scaled |
| log-warp | always the logarithms of distances in the worse half |
| rank-warp | always the order alone in the worse half |
| no-tpe | no trial is TPE's |
| no-box | no trial is sought in a box around the best one |
| nearest | the hundred trials nearest to the best ones are modelled, and the search stays among them |
| best-liar, worst-liar | expected improvement on the best mean; running trials count as the best, or the worst, value |

There is no warp of inputs to take away. Studies are kept as those of bench-search are.
"""

from _figures import save
from _variants import VARIANTS, begin, files
from search import measure, options


def main() -> None:
    given = options(__doc__, "ablation", strategies=["bayesian", *VARIANTS], trials=100)
    save(given.results, measure(given, begin=begin, files=files))


if __name__ == "__main__":
    main()
