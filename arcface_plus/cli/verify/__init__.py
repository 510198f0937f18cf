"""``arcface-plus verify``: 1:1 verification of a model, or of embeddings in a file.

- ``command.py``: its options and what it calls.
- ``checks.py``: options that are refused before any work.
- ``output.py``: tables on the terminal and in files, the report, calibration and card.
"""
