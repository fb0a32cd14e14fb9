"""Readers of other programs' texts: text in, data out. They import no other room."""
