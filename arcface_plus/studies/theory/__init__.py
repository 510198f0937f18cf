"""The theory of uniform prototypes: sampling, curves, figures and advice.

The exact laws are in ``losses/theory``; docs/uniform_prototypes.md names what was reconstructed.

- ``prototypes.py``: angle to the nearest class (Prop. 1); ``uniform_caps.py``: caps (Prop. 2);
  ``uniform_negatives.py``: sum over the wrong classes (Prop. 3). ``uniform_figures.py`` draws
  them, Figs. 7 to 10 of the margin-softmax appendix.
- ``margin_curves.py``: loss and gradients against angles, eqs. (3), (11), (12);
  ``gradient_magnitudes.py``: four measures of similarity, eqs. (3) to (5) of the closeness
  supplement. ``margin_figures.py`` draws them, Figs. 11 to 14 and A2.
- ``decision_regions.py``: which class owns a point. ``region_figures.py`` draws Figs. 15 to 18.
- ``figures.py``: all of these figures by name (``study theory``).
- ``margin_advice.py``: margins proposed from the number of classes (``margins advise``);
  ``advice_figure.py`` draws their pull.
"""
