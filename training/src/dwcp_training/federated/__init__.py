"""Federated training: many sites train one model together, and their rows stay where they are.

The arithmetic (`moments`, `sketch`, `fixed_point`, `site`, `rounds`) knows nothing of Flower; `flower_*` modules carry
its questions and answers. Flower is imported when a command needs it, never before.
"""
