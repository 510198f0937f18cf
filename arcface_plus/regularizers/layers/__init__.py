"""The layers of a model that a penalty regularizes.

=======  ===========================================================================================
finding  which modules have rows to compare, why others have none, and the weight as sets of rows
choice   hidden, output, all, or names by pattern; what is left out
=======  ===========================================================================================
"""
