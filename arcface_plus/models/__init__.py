"""Networks: build one by name, load one from a file, save one.

=====================  ============================================================================
build                  which names there are, and how one becomes a network
embedding_model        what all networks share, and the checks of their options
face/                  embedding nets: IResNet (ArcFace's), MobileFaceNet, ViT, any net of timm
classification/        the nets of the MMA paper's tables: ResNet, VGG, Wide ResNet, DenseNet
imports/               nets that others trained: names of AdaFace's and CVLface's, ONNX files
start                  the net that a run begins with, from a file: what fits, what begins anew
initialization         how weights begin: He et al. (ICCV 2015), eq. (10) by fan-in, (14) by fan-out
preprocessing          how pixels become input, as stored with the weights
weights                load_model, save_model, and the hash of weights
weight_files           which files hold weights, and how they are read without running code
layouts                the options of a network from the shapes of its weights (arcface_torch)
onnx_model             an ONNX file as an embedding network
batch_statistics       running statistics of batch norms, averaged over ranks
cost                   parameters, multiply-adds and activation memory of a network
recompute              gradient checkpointing that keeps batch statistics right
autocast               which devices multiply bf16 natively; where autocast must not reach
settings               the section ``model`` of a configuration
=====================  ============================================================================
"""

from __future__ import annotations

from arcface_plus.models.build import MODELS, build_model
from arcface_plus.models.preprocessing import Preprocessing
from arcface_plus.models.weights import load_model, model_hash, save_model

__all__ = ["MODELS", "Preprocessing", "build_model", "load_model", "model_hash", "save_model"]
