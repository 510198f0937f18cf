"""Margins: the logit of a sample's own class, and what the other classes weigh.

==============  ====================================================================================
base            what the head asks of any margin
family          s·(m0·cos(m1·θ + m2) − m3): ArcFace (CVPR 2019, eq. 3), CosFace, SphereFace, AmpFace
adacos          AdaCos (CVPR 2019): a scale that sets itself
adaface         AdaFace (CVPR 2022): a margin by image quality
curricularface  CurricularFace (CVPR 2020): hard negatives weigh more as training goes on
elasticface     ElasticFace (CVPRW 2022): a margin drawn anew for every sample
magface         MagFace (CVPR 2021): a margin by the norm, which learns to measure quality
mv_softmax      MV-Softmax (AAAI 2020): misclassified negatives weigh more
uniface         UniFace (ICCV 2023): a threshold that all classes share
==============  ====================================================================================
"""
