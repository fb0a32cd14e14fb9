"""The time that the controller takes before it does anything."""
