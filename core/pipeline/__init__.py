"""A batch becomes a candidate."""
