"""One node of a graph: what it is, what it results in, and the values it is filled with."""
