"""The `psarm` command, also `python -m psarm`: Ctrl-C while it is imported ends it in one line, too."""

import sys


def main() -> None:
    """Run the command line on this program's arguments and exit."""
    try:
        from psarm.cli import main as run

        run()
    except KeyboardInterrupt:
        sys.stderr.write("\nInterrupted.\n")  # the first end is that of the terminal's ^C
        sys.exit(130)


if __name__ == "__main__":
    main()
