"""`python -m cfrec`."""

import sys

from cfrec.cli import main

sys.exit(main())
