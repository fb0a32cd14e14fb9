"""The verbs, where the site, roles, engine and proof meet. `tasks.py` only names them."""
