"""`python -m psarm`: the same as the `psarm` command."""

from psarm.cli import main

if __name__ == "__main__":
    main()
