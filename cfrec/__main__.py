"""`python -m cfrec`."""

import sys

if __name__ == "__main__":
    try:
        from cfrec.cli import main

        sys.exit(main())
    except KeyboardInterrupt:  # while it was starting up
        sys.exit("cfrec: interrupted")
