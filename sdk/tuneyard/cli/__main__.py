"""`python -m tuneyard.cli`."""

import sys

from tuneyard.cli import main

sys.exit(main())
