"""Settings of the angular penalty on the layers of a model."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from arcface_plus.settings import Section

RegularizerKind = Literal[
    "mma", "cosine", "riesz", "log", "mhe", "orthogonal", "regularface", "smooth_mma"
]


class RegularizerConfig(Section):
    """An angular penalty on the weights of the layers, eq. (13) of the MMA paper."""

    kind: RegularizerKind = Field("mma", description="what is asked of the rows")
    weight: float = Field(0.0, ge=0, description="λ; 0 is no penalty")
    layers: str | tuple[str, ...] = Field(
        "all",
        description="hidden (the net), output (the class weights), all, or patterns of layer names",
    )
    exclude: tuple[str, ...] = Field((), description="patterns of layer names to leave out")
    s: float = Field(2.0, ge=0, description="riesz, mhe: exponent")
    fraction: float = Field(1.0, gt=0, le=1, description="mhe: share of the rows drawn a step")
    half_space: bool = Field(False, description="mhe: lines instead of directions")
    temperature: float = Field(0.1, gt=0, description="smooth_mma: width of the minimum, radians")

    @property
    def on_output(self) -> bool:
        """Whether the class weights are penalised."""
        return self.weight > 0 and self.layers in ("output", "all")

    @property
    def on_net(self) -> bool:
        """Whether layers of the net are penalised."""
        return self.weight > 0 and self.layers != "output"
