"""The verbs' bodies: where the site, the roles, the engine and the proof meet. `tasks.py` only names them."""
