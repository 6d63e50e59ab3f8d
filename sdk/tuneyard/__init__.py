"""What training code imports: `parameters`, `report`, `trial`, `checkpoint_dir`, `limit_gpu_memory`. No dependencies.

Example:
    ```python
    import tuneyard

    config = tuneyard.parameters(lr=0.01, layers=2)  # the defaults serve where the program runs by hand
    for epoch in range(20):
        accuracy = train(config)
        tuneyard.report(step=epoch, accuracy=accuracy)
    ```
"""

from tuneyard._gpu_part import limit_gpu_memory
from tuneyard._report import report
from tuneyard._trial import Trial, checkpoint_dir, parameters, trial

__all__ = ["Trial", "checkpoint_dir", "limit_gpu_memory", "parameters", "report", "trial"]
