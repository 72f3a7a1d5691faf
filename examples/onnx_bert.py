"""An ONNX export of a BERT encoder as a transformers folder: config.json and model.safetensors.

Reads what exporters make of a BERT, in float32 or in the dynamic int8 form of onnxruntime, whose
weights become the float32 numbers that they stand for.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Arrays = dict[str, npt.NDArray[Any]]
    Weights = dict[str, npt.NDArray[np.float32]]

PARAMETER = re.compile(r"(embeddings|encoder\.layer\.\d+)\..*(weight|bias)$")
HEAD = re.compile(r"(pooler\.dense|classifier)\.(weight|bias)$")  # of a task: left behind
# Products with a weight: what an int8 export adds to the names of the weight and of the result.
PRODUCTS = {"MatMul": ("", ""), "MatMulInteger": ("_quantized", "_output_quantized")}


class ConversionError(Exception):
    """A graph that is not, whole and exactly, a BERT encoder."""


def parameter_name(constant: str) -> str | None:
    """The name that transformers uses, without the exporter's prefix; None for other constants."""
    match = PARAMETER.search(constant)
    return match[0] if match else None


def constants_of(graph: Any) -> Arrays:
    """The constants of a graph by name; int8 weights as float32, (q - zero point) * scale."""
    import numpy as np
    from onnx import numpy_helper

    arrays: Arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for scale in [name for name in arrays if name.endswith("_scale")]:
        name = scale.removesuffix("_scale")
        if f"{name}_quantized" in arrays:
            whole = arrays.pop(f"{name}_quantized").astype(np.float32)
            arrays[name] = (whole - arrays.pop(f"{name}_zero_point")) * arrays.pop(scale)
    return arrays


def read_encoder(graph: Any) -> Weights:
    """Every weight of an ONNX graph under its transformers name; raises if one has no place.

    Exporters fold the transposition of a Linear's weight into an anonymous constant. The bias that
    is added to its product keeps its name, and tells which layer it is.
    """
    constants = constants_of(graph)
    weights = {name: constants[raw] for raw in constants if (name := parameter_name(raw))}
    placed = {raw for raw in constants if parameter_name(raw) or HEAD.search(raw)}
    addends = {name: list(n.input) for n in graph.node if n.op_type == "Add" for name in n.input}
    for node in graph.node:
        in_weight, in_result = PRODUCTS.get(node.op_type, ("", ""))
        raw = node.input[1].removesuffix(in_weight) if node.op_type in PRODUCTS else ""
        if raw in constants and not HEAD.search(raw):
            beside = addends.get(node.output[0].removesuffix(in_result), ())
            names = [parameter_name(name) for name in beside]
            biases = [name for name in names if name and name.endswith(".bias")]
            if len(biases) != 1:
                raise ConversionError(f"the graph's node {node.name or node.output[0]} has no bias")
            weights[biases[0].removesuffix("bias") + "weight"] = constants[raw].T
            placed.add(raw)
    lost = [raw for raw, array in constants.items() if array.dtype.kind == "f" and array.size > 1]
    if lost := [raw for raw in lost if raw not in placed]:
        where = "the graph has weights that have no place in a BERT encoder"
        raise ConversionError(f"{where}: {lost[:5]}")
    return weights


def config_of(weights: Weights, heads: int) -> Any:
    """A BertConfig with the sizes of the weights."""
    from transformers import BertConfig

    try:
        vocabulary, width = weights["embeddings.word_embeddings.weight"].shape
        return BertConfig(
            vocab_size=vocabulary,
            hidden_size=width,
            num_hidden_layers=len({k.split(".")[2] for k in weights if k.startswith("encoder.")}),
            num_attention_heads=heads,
            intermediate_size=len(weights["encoder.layer.0.intermediate.dense.bias"]),
            max_position_embeddings=len(weights["embeddings.position_embeddings.weight"]),
            architectures=["BertModel"],
        )
    except KeyError as error:
        raise ConversionError(f"the graph lacks {error}") from None


def check_exact(weights: Weights, config: Any) -> None:
    """Raise unless these are all weights of a BertModel, and no others: names, shapes, fp32."""
    import torch
    from transformers import BertModel

    with torch.device("meta"):  # names and shapes only, no memory
        model = BertModel(config, add_pooling_layer=False)  # a task's head brings its own
    expected = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    found = {name: array.shape for name, array in weights.items() if array.dtype == "float32"}
    if wrong := sorted(name for name, _ in expected.items() ^ found.items()):
        raise ConversionError(f"missing, unknown or misshapen in the graph: {wrong[:5]}")


def convert(onnx_file: Path, folder: Path, heads: int) -> None:
    """Write an ONNX BERT encoder as config.json and model.safetensors.

    The shapes of the weights do not tell the number of `heads`.
    """
    import numpy as np
    import onnx
    from safetensors.numpy import save

    weights = read_encoder(onnx.load(onnx_file).graph)
    config = config_of(weights, heads)
    check_exact(weights, config)
    config.save_pretrained(folder)
    contiguous = {name: np.ascontiguousarray(array) for name, array in weights.items()}
    data = save(
        contiguous, metadata={"format": "pt"}
    )  # (save_file makes a file for its owner only)
    (folder / "model.safetensors").write_bytes(data)
