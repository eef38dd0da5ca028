"""`python -m cfrec`, and the command `cfrec`."""

import sys


def main() -> None:
    """Run the command line, and exit with its code."""
    try:
        from cfrec import cli

        sys.exit(cli.main())
    except KeyboardInterrupt:  # while it was starting up
        sys.exit("cfrec: interrupted")


if __name__ == "__main__":
    main()
