"""Start the psarm command line from a checkout: `python cli.py --help`."""

from psarm.__main__ import main

if __name__ == "__main__":
    main()
