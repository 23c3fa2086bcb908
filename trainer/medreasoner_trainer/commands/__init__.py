"""Commands of `medreasoner-train`, one module for each group."""
