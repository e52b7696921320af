"""`dwcp explain`: which metrics make a score what it is, and what was expected of them."""
