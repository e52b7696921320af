#!/usr/bin/env python3
"""Trains the isolation forest. The same as `dwcp train isolation-forest`; `--help` lists the flags."""

import typer

from dwcp_training.cli import isolation_forest

if __name__ == "__main__":
    typer.run(isolation_forest)
