"""`python -m reconciler.cli`: the same as `interlock`."""

from reconciler.cli import main

if __name__ == "__main__":
    main()
