"""Tables of what was measured, most of them rows of trained runs on the engine ``repeats``.

- ``accuracy_rows.py``: the rows of Tables 2 to 6 and Figs. 3 and 4 of the MMA paper, and of our
  own comparison of penalties on face crops (``study faces``).
- ``accuracy_tables.py``: these tables beside the papers' numbers; ``accuracy_figures.py`` draws
  accuracy against λ and the smallest angle of every layer (supplement D).
- ``penalty_cost.py``: time and memory that each penalty adds, Table 3 of the MMA paper.
- ``closeness_table.py``: Table A1 of the closeness-and-diversity supplement.
- ``margin_sweep.py``: the sweep of m0 … m3, Table 3 of the margin-softmax paper.
- ``face_margins.py``: our own comparison of losses on a small set of faces.
- ``compare_margins.py``: our margin losses beside the published modules, loss and gradients.
"""
