"""Photographs: where they come from, their pixels, and where crops of them are taken."""
