"""The map of our regions, and the control servers that clients get it from. Opens no connection."""
