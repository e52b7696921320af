#!/usr/bin/env python3
"""Trains the LSTM autoencoder. The same as `dwcp train lstm-autoencoder`; `--help` lists the flags."""

import typer

from dwcp_training.cli import lstm_autoencoder

if __name__ == "__main__":
    typer.run(lstm_autoencoder)
