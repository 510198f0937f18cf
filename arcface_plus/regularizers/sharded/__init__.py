"""MMA of rows that are cut over ranks; one rank is the ring of one.

=========  =========================================================================================
mma        the loss, eq. (6) and (8) of the MMA paper: of all rows, or estimated from sampled ones
ring       how the nearest rows are found and gradients brought home, shard by shard
class_mma  MMA on the class weights of a run: which rows, which step, and what the log shows
=========  =========================================================================================
"""
