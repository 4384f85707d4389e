"""What to do with concepts: take them out and put them in, measure what that does, compare two explanations."""
