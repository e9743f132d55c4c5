"""The command, tested from outside."""
