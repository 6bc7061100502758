"""`python -m breaker` is the command `breaker`."""

from breaker.cli.app import main

if __name__ == "__main__":
    main()
