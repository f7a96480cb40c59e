"""The graph of df nodes that a program becomes, and its SQL."""
