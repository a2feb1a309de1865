"""The pretrained model's gateway, shared by the tests of this folder."""

from tests.engine.real_model.gateway import real_gateway

__all__ = ["real_gateway"]
