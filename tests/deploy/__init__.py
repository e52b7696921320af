"""What is in deploy/ is run or checked with the tools that would read it, as far as this machine has them."""
