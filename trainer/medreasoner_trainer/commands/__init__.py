"""The commands of `medreasoner-train`, one module each."""
