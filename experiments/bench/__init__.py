"""Speed and memory, measured: nothing here decides what a result is."""
