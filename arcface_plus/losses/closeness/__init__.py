"""Closeness and diversity: Zhao et al., ACCV 2022.

===============  ===================================================================================
closeness        easy samples of a class are drawn together
diversity        hard samples are pushed from similar classes: eq. (1) and (2) of its supplement,
                 eq. (7) of the paper as reconstructed
similar_classes  the classes most like given samples, over class weights split among ranks
===============  ===================================================================================
"""
