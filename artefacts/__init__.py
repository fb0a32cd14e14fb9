"""Makes on the controller what hosts are given: releases for their Python, images, Go programs. Each is made once and kept."""
