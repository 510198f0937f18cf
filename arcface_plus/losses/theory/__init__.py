"""Class weights spread uniformly over the sphere: the margin-softmax appendix.

==================  ================================================================================
uniform_law         the law of an angle to a fixed direction; Prop. 2 (caps), Prop. 3 and eq. (10)
                    (the weight of all wrong classes)
uniform_prediction  Prop. 1 (the angle to the nearest class), termination angle, polar collapse
==================  ================================================================================
"""
