"""Losses of the angles between the rows of a weight: MMA, its rivals, and what computes them.

Equations are those of the MMA paper (NeurIPS 2020).

==============  ====================================================================================
mma             MMA of one process: eq. (6), its gradient (8)
energies        cosine loss (5), Riesz-Fisher (9), logarithmic (11), MHE
orthogonal      eq. (14)
regularface     the exclusive regularization of RegularFace (CVPR 2019), which is (5)
smooth_mma      MMA with a soft minimum (ours)
simplex         the optimum, eq. (3) and (4), where there is room for it
penalty         any of these by its name, with its options
angular         ``AngularRegularizer``: a penalty on the layers of a model, eq. (13)
settings        the section ``regularizer`` of a configuration
geometry/       unit rows, angles, and closed-form gradients
nearest/        the nearest other row of every row, exactly
sharded/        MMA of rows that are cut over ranks; MMA on the class weights of a run
layers/         which layers of a model have rows to compare, and which are chosen
==============  ====================================================================================
"""
