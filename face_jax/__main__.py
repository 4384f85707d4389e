"""`python -m face_jax`: the command."""

from .cli.app import main

if __name__ == "__main__":
    main()
