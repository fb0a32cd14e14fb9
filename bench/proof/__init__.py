"""How long a proof takes."""
