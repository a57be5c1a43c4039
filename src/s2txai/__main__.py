"""``python -m s2txai``."""

import sys

from s2txai.cli import main

sys.exit(main())
