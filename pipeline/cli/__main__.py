"""`python -m pipeline.cli`, which needs no command on the path."""

from pipeline.cli import main

if __name__ == "__main__":
    main()
