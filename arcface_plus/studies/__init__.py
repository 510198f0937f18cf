"""The papers' tables and figures: what to train, what was measured, and how it is drawn.

Each study is a command, ``arcface-plus study NAME``, whose words ``cli/study`` parses.

- ``repeats/``: the engine of every table of trained runs, and ``arcface-plus repeat``: rows ×
  seeds, trained once, compared in pairs.
- ``tables/``: what runs scored, beside the papers' numbers; the cost of penalties; our margins
  beside the published modules.
- ``tammes/``: points far apart on the sphere, Table 1 of the MMA paper and our solver.
- ``theory/``: uniform prototypes, Figs. 7 to 18 of the margin-softmax appendix, Fig. A2 of the
  closeness paper, and margins proposed before training.
- ``filters.py``: cosines between filters and gradient norms, Figs. 1 and 2 of the MMA paper.
- ``distribution_view.py``: histograms of the cosines of genuine and impostor pairs, Fig. A1 of the
  closeness paper's supplement.

All of them share ``table.py`` (summary over seeds, Markdown, CSV) and ``figure.py`` (the look of
figures, SVG and PNG).
"""
