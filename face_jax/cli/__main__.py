"""`python -m face_jax.cli`, where the command isn't on the path."""

from .app import main

if __name__ == "__main__":
    main()
