"""HTTP nodes: what may be called, and how it is called."""
