"""Code that several verbs need. A verb imports from here and from no other verb.

Importing this package imports nothing else.
"""
