"""The one step path: runs a claimed step and records its outcome."""
