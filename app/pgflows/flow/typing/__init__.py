"""The types of a program's values, and whether each value fits where it goes."""
