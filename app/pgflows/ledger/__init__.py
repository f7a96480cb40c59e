"""The ledger of steps, as one service process sees it."""
