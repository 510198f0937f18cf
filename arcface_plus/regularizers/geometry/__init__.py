"""Rows on the unit sphere and the angles between them; equations of the MMA paper.

==============  ====================================================================================
sphere          a weight as rows, their norms, unit rows whole or by block; rows without a direction
angles          the angle of a pair and its gradient, (6) and (8), from coincident to antipodal rows
closed_form     what losses share whose value and gradient are computed in forward
gradient_norms  how hard each loss turns a row, by the angle: (7), (8), (10), (12)
==============  ====================================================================================
"""
