"""Start the psarm command line from a checkout: `python cli.py --help`."""

from psarm.cli import main

if __name__ == "__main__":
    main()
