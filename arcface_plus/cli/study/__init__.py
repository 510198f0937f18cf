"""``arcface-plus study NAME``: options of each study; the work is in ``arcface_plus.studies``.

- ``app.py``: all names. ``runs.py``: options of the tables that are made of runs.
- ``repeat.py``: ``arcface-plus repeat``, which is no name of ``study``.
- ``accuracy.py``: table2 … table6, fig3, fig4, faces (penalties on face crops),
  and ``accuracy`` of any runs.
- ``faces.py``: table-a1, face-margins, margin-sweep, compare-margins.
- ``filters.py``: fig1, fig2, table3-cost. ``tammes.py``: table1. ``theory.py``: theory.
- ``distribution.py``: distribution, of models or of embeddings.
"""
