"""`python -m runner`: see runner.process."""

import sys

from runner.process import main

sys.exit(main())
