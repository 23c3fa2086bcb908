"""`python -m napari_medreasoner.cli` is the same as `medreasoner`."""

from napari_medreasoner.cli.app import main

if __name__ == "__main__":
    main()
