"""UMRG data: records, the files they are kept in, splits and checks."""

from medreasoner_trainer.data.open import open_data
from medreasoner_trainer.data.record import CoordinateSpace, DataSet, Problem, Record, Tier

__all__ = ["CoordinateSpace", "DataSet", "Problem", "Record", "Tier", "open_data"]
