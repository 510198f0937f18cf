"""1:1 verification of pairs, from squared L2 distances of unit embeddings.

- ``verification.py``  ``verify``: all measures of a set of pairs; normalises embeddings
- ``tenfold.py``       the k-fold protocol of LFW View 2: the threshold of the other folds
- ``pca.py``           the same with a PCA fitted on the training folds
- ``roc.py``           AUC, EER and TAR at FAR, by our rule and by insightface's; ``TarAtFar``
- ``intervals.py``     95 % intervals of accuracy, TAR and thresholds; a threshold for a FAR
- ``dependence.py``    which pairs share people, and the variance that follows (jackknife)
- ``comparison.py``    two models on the same pairs: paired difference and McNemar's test
- ``calibration.py``   cosines to likelihood ratios, and their cost (Cllr)
- ``distribution.py``  where genuine and impostor cosines lie (distribution view)
"""
