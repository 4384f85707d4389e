"""The record of an explanation: its concepts and their parts, saved to files and loaded again."""
