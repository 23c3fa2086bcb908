"""UMRG data: records, the files they are kept in, splits and checks."""
