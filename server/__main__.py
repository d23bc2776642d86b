"""`python -m server` is `ain-serve`."""

from server.cli import main

if __name__ == "__main__":  # processes that the engine spawns import this module again
    raise SystemExit(main())
