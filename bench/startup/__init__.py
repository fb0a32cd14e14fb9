"""How long the controller takes before it does anything."""
