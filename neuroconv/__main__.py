"""python -m neuroconv: the same command line as the console script."""

from neuroconv.cli import main

if __name__ == "__main__":
    main()
