"""Search spaces and strategies (numpy and scipy only), and the HTTP service that serves them.

Matrices here are small: a second thread for a product of them takes a core from trials, takes longer, and changes the
last bits. BLAS libraries read how many they may have once, as they are loaded, which is here. Then the variables are
unset again, since programs that are started from here inherit them.
"""

import os

_unset = [name for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS") if name not in os.environ]
os.environ |= dict.fromkeys(_unset, "1")
import numpy as np  # noqa: E402, F401
import scipy.linalg  # noqa: E402, F401

for _name in _unset:
    del os.environ[_name]
