"""`python -m pipelines` is `aidetect`: for launchers that start a module, such as torchrun."""

from pipelines.cli import main

if __name__ == "__main__":
    main()
