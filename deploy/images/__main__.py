"""`python -m images DIRECTORY`."""

import sys

from images.build import main

sys.exit(main(sys.argv[1:]))
