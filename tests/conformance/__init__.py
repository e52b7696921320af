"""The proof: one judge, many implementations, equal to the last bit (rules P1 to P4)."""
