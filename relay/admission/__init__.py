"""Who may use the relay."""
