"""The proof: a ladder of checks from outside that ends with packets that passed."""
