"""The clients that may use the relay."""
