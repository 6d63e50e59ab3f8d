"""What training code imports: `parameters`, `report`, `checkpoint_dir` and `trial`. Standard library only.

Example:
    ```python
    import tuneyard

    config = tuneyard.parameters(lr=0.01, layers=2)  # the defaults serve where the program runs by hand
    for epoch in range(20):
        accuracy = train(config)
        tuneyard.report(step=epoch, accuracy=accuracy)
    ```
"""

from tuneyard._report import report
from tuneyard._trial import Trial, checkpoint_dir, parameters, trial

__all__ = ["Trial", "checkpoint_dir", "parameters", "report", "trial"]
