"""A torch classifier followed through its operations, and cut in two at one of its layers."""
