"""Photos for training.

`sources` and `streams` read photos, `crops` cuts squares, `batches` collects them, and `modules`
hands them to the trainer. `files` finds photos on disk; `folders` walks through folders.
"""
