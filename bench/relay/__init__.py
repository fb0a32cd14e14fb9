"""Side by side: derper and this project's relay under the same traffic, on the same cores.

`python -m bench.relay -h` shows the options.
"""
