"""A deploy that takes itself back: its turns, how fast the old release is back, its clients."""
