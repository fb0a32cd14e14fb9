"""Programs that the controller makes for hosts: releases for their Python, images, Go programs.

Each is made once and kept.
"""
