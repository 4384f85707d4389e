"""Concepts taken apart at earlier layers."""
