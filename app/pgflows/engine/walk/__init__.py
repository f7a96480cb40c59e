"""The walk of one instance through its graph."""
