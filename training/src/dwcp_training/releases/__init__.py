"""The releases of a model folder: which there are, which one is current, which one was before it."""
