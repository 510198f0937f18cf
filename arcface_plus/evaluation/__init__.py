"""How well a model tells people apart: embeddings first, then scores, rates and intervals.

- ``embedding/``  images to embeddings, and embeddings in files
- ``pairs/``      1:1 on pairs: k-fold accuracy, ROC, TAR at FAR, intervals, two models compared
- ``search/``     templates (IJB-B, IJB-C) and 1:N: rank-k, TPIR at FPIR, distractors (MegaFace)
- ``benchmark/``  error rates by group, error versus discard
- ``cleaning/``   what is likely wrong in a folder of faces: copies, labels, people
- ``report/``     the HTML page of a verification

Files here:

- ``scoring.py``         what ``arcface-plus verify`` scores: a model or embeddings on pair sets
- ``analyses.py``        what can be added to it: other models, thresholds, groups, discards
- ``model_calibration.py``  thresholds and likelihood ratios stored with a model
- ``photographs.py``     single photographs: their faces, two of them side by side
- ``hooks.py``           verification during training; the numbers in a run's verification.json
- ``classification.py``  top-1 and top-5 on test images during training
- ``tables.py``          accuracies as rows of a paper's table (Markdown, LaTeX)
- ``settings.py``        the configuration's section ``evaluation``

``embedding``, ``search`` and ``report`` import from ``pairs``, never the other way round.
"""
