"""`python -m kouling`."""

import sys

from kouling.cli import main

sys.exit(main())
