"""The nearest other row of every row, exactly, without an n × n matrix.

=======  ===========================================================================================
search   ``nearest_neighbors``, and the searches of one set, of two, and for a few queries
tables   the products: blocks of cosines, reduced to one number a group of columns (fp32, half)
ranking  from these numbers to the nearest row; what is near is settled in float64
kernel   the same on a GPU, in one Triton kernel: the host never waits
cache    neighbours kept for several steps: an approximation
=======  ===========================================================================================
"""
