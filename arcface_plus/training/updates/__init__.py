"""What an optimizer step does beyond torch's own optimizers.

- ``rows``: SGD, AdamW and LAMB of class weights, row by row: rows out of the sample are untouched.
- ``lamb``: LAMB of the net's layers, from the library timm (the extra ``timm``).
- ``average``: the running average of the weights, a part of every checkpoint.
"""
