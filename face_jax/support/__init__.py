"""What every room needs and no room is about: checks of arguments, progress, randomness, caches, memory, files."""
