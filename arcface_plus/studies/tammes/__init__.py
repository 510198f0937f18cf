"""The Tammes problem: n points on the unit sphere, as far apart in angle as can be.

Our solver, ``arcface-plus tammes`` and ``ap.solve_tammes``, from the outside in:

- ``solve.py``: closed forms where one is known, otherwise the search; checks of sizes.
- ``search.py``: random restarts, hops of single points into holes, polish of the best.
- ``anneal.py``: a smooth maximum of the cosines, sharper and sharper, minimised by L-BFGS.
- ``polish.py``: sequential linear programs to a local optimum.
- ``angles.py``: the smallest angle, and a lower bound of it that rounding cannot break.
- ``picture.py``: the points and the pairs at the smallest angle.

The MMA paper's protocol, Table 1:

- ``losses.py``: MMA (6), cosine (5), Riesz-Fisher (9) and logarithm (11) for a batch of runs.
- ``paper.py``: its SGD; ``table.py``: its rows, measured, beside the paper's numbers.
"""
