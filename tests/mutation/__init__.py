"""The mutation proof: damage that every implementation must refuse."""
