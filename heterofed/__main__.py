"""`python -m heterofed` is the `heterofed` command."""

from heterofed.cli import main

if __name__ == "__main__":
    main()
