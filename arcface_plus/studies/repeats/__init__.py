"""One engine for every table of trained runs: rows × seeds, trained once, compared in pairs.

- ``vary.py``: ``arcface-plus repeat``: rows from ``--vary head.mma_weight=0,0.03``, seeds.
- ``runs.py``: rows, their runs, which of them are unfinished; the hash of a run's settings.
- ``training.py``: trains the unfinished ones, one or several at a time, none twice.
- ``cluster.py``: their commands, one a line or as the script of a SLURM array.
- ``records.py``: the numbers of each run, from run folders or from the JSON file of a study.
- ``comparison.py``: mean, deviation and interval over seeds; paired differences to a row.
- ``output.py``: the tables as Markdown, LaTeX, CSV and JSON. ``figure.py``: the same, drawn.
"""
