"""examples/onnx_bert.py: every weight in its place, in float32 and out of int8."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_bert
import pytest

PREFIX = "model.0.auto_model."
HEADS = 2


def tiny_weights() -> dict[str, np.ndarray]:
    import torch
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=23,
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=HEADS,
        intermediate_size=12,
        max_position_embeddings=10,
    )
    torch.manual_seed(0)
    model = BertModel(config, add_pooling_layer=False)
    # Vectors start as zeros and ones: made distinct, so that a swapped pair cannot pass.
    return {name: torch.randn_like(p).numpy() for name, p in model.named_parameters()}


def onnx_graph(weights: dict[str, np.ndarray]) -> Any:
    """The form of published exports: x times an anonymous transposed weight, plus a named bias."""
    from onnx import helper, numpy_helper

    constants: list[Any] = []
    nodes: list[Any] = []
    for name, array in weights.items():
        bias = name.removesuffix("weight") + "bias"
        if "LayerNorm" in name or "embeddings" in name or name.endswith("bias"):
            constants.append(numpy_helper.from_array(array, PREFIX + name))
            continue
        raw, product = f"onnx::MatMul_{len(nodes)}", f"product_{len(nodes)}"
        constants.append(numpy_helper.from_array(np.ascontiguousarray(array.T), raw))
        addends = [PREFIX + bias, product] if len(nodes) % 4 else [product, PREFIX + bias]
        nodes.append(helper.make_node("MatMul", ["x", raw], [product]))
        nodes.append(helper.make_node("Add", addends, [f"sum_{len(nodes)}"]))
    return helper.make_graph(nodes, "encoder", [], [], constants)


def in_int8(graph: Any) -> tuple[Any, dict[str, np.ndarray]]:
    """(the graph as onnxruntime's dynamic quantisation leaves it, the float32 of its integers).

    Constants of more than one dimension become q, a scale and a zero point; a product of integers
    is cast and scaled before the bias is added.
    """
    from onnx import helper, numpy_helper

    constants, nodes, meant = [], [], {}
    for place, tensor in enumerate(graph.initializer):
        array = numpy_helper.to_array(tensor)
        if array.ndim < 2:
            constants.append(tensor)
            continue
        scale, zero = np.float32(0.01 + 0.001 * place), np.uint8(100 + place)
        q = np.clip(np.round(array / scale) + zero, 0, 255).astype(np.uint8)
        for name, value in (("quantized", q), ("scale", scale), ("zero_point", zero)):
            constants.append(numpy_helper.from_array(np.asarray(value), f"{tensor.name}_{name}"))
        meant[tensor.name] = (q.astype(np.float32) - np.float32(zero)) * scale
    for node in graph.node:
        if node.op_type != "MatMul":
            nodes.append(node)
            continue
        (x, raw), result = node.input, node.output[0]
        whole, cast = f"{result}_output_quantized", f"{result}_output_quantized_cast_output"
        inputs = [f"{x}_quantized", f"{raw}_quantized", f"{x}_zero_point", f"{raw}_zero_point"]
        nodes.append(helper.make_node("MatMulInteger", inputs, [whole]))
        nodes.append(helper.make_node("Cast", [whole], [cast], to=1))
        nodes.append(helper.make_node("Mul", [cast, f"{raw}_scale"], [result]))
    return helper.make_graph(nodes, "encoder", [], [], constants), meant


def with_head(graph: Any) -> Any:
    """A pooler and a classifier of two classes, whose products have names of their own."""
    from onnx import helper, numpy_helper

    for name, rows in (("bert.pooler.dense", 8), ("classifier", 2)):
        weight, bias = np.ones((8, rows), np.float32), np.ones(rows, np.float32)
        graph.initializer.append(numpy_helper.from_array(weight, f"{name}.weight"))
        graph.initializer.append(numpy_helper.from_array(bias, f"{name}.bias"))
        graph.node.append(helper.make_node("MatMul", ["x", f"{name}.weight"], [f"{name}_product"]))
        addends = [f"{name}_product", f"{name}.bias"]
        graph.node.append(helper.make_node("Add", addends, [f"{name}_sum"]))
    return graph


@pytest.fixture
def weights() -> dict[str, np.ndarray]:
    pytest.importorskip("onnx", reason="onnx is an optional dependency (the demo's converter)")
    return tiny_weights()


def convert(weights: dict[str, np.ndarray], folder: Path) -> None:
    import onnx

    file = folder / "model.onnx"
    onnx.save(onnx.helper.make_model(onnx_graph(weights)), file)
    onnx_bert.convert(file, folder, heads=HEADS)


def test_converted_weights_equal_the_original(
    weights: dict[str, np.ndarray], tmp_path: Path
) -> None:
    from transformers import BertModel

    convert(weights, tmp_path)

    model = BertModel.from_pretrained(tmp_path, add_pooling_layer=False)
    assert model.config.num_attention_heads == HEADS
    loaded = {name: parameter.detach().numpy() for name, parameter in model.named_parameters()}
    assert loaded.keys() == weights.keys()
    for name, array in weights.items():
        np.testing.assert_array_equal(loaded[name], array, err_msg=name, strict=True)


def test_integers_become_the_numbers_that_they_stand_for(weights: dict[str, np.ndarray]) -> None:
    graph, meant = in_int8(onnx_graph(weights))
    found = onnx_bert.read_encoder(graph)

    linears = [name for name, array in weights.items() if array.ndim == 2]
    vectors = weights.keys() - set(linears)
    anonymous = iter(array.T for raw, array in meant.items() if raw.startswith("onnx::"))
    for name in linears:
        expected = meant[PREFIX + name] if "embeddings" in name else next(anonymous)
        np.testing.assert_array_equal(found[name], expected, err_msg=name, strict=True)
        assert not np.array_equal(found[name], weights[name]), "rounded to integers"
    for name in vectors:
        np.testing.assert_array_equal(found[name], weights[name], err_msg=name, strict=True)
    assert found.keys() == weights.keys()


@pytest.mark.parametrize("form", ["fp32", "int8"])
def test_a_tasks_head_is_left_behind(weights: dict[str, np.ndarray], form: str) -> None:
    graph = with_head(onnx_graph(weights))
    found = onnx_bert.read_encoder(in_int8(graph)[0] if form == "int8" else graph)
    assert found.keys() == weights.keys()
    onnx_bert.check_exact(found, onnx_bert.config_of(found, HEADS))


def test_an_integer_weight_without_its_scale_is_an_error(weights: dict[str, np.ndarray]) -> None:
    graph, _ = in_int8(onnx_graph(weights))
    lost = PREFIX + "embeddings.word_embeddings.weight_scale"
    kept = [tensor for tensor in graph.initializer if tensor.name != lost]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    found = onnx_bert.read_encoder(graph)
    with pytest.raises(onnx_bert.ConversionError, match=r"embeddings\.word_embeddings"):
        onnx_bert.check_exact(found, onnx_bert.config_of(found, HEADS))


def test_conversion_is_deterministic(weights: dict[str, np.ndarray], tmp_path: Path) -> None:
    files = []
    for name, source in (("a", weights), ("b", dict(reversed(weights.items())))):
        (tmp_path / name).mkdir()
        convert(source, tmp_path / name)
        files.append((tmp_path / name / "model.safetensors").read_bytes())
    assert files[0] == files[1]


@pytest.mark.parametrize(
    "name",
    [
        "embeddings.word_embeddings.weight",
        "embeddings.token_type_embeddings.weight",
        "encoder.layer.0.attention.self.key.weight",
        "encoder.layer.1.output.dense.weight",
        "encoder.layer.1.output.LayerNorm.bias",
    ],
)
def test_a_missing_weight_is_an_error(
    weights: dict[str, np.ndarray], tmp_path: Path, name: str
) -> None:
    del weights[name]
    with pytest.raises(onnx_bert.ConversionError, match=name.replace(".", r"\.")):
        convert(weights, tmp_path)
    assert not (tmp_path / "model.safetensors").exists()


def test_a_linear_without_its_bias_is_an_error(
    weights: dict[str, np.ndarray], tmp_path: Path
) -> None:
    graph = onnx_graph(weights)
    first_add = next(node for node in graph.node if node.op_type == "Add")
    first_add.input[:] = ["product_0", "y"]
    with pytest.raises(onnx_bert.ConversionError, match="product_0 has no bias"):
        onnx_bert.read_encoder(graph)


def test_a_weight_of_another_kind_is_an_error(weights: dict[str, np.ndarray]) -> None:
    from onnx import numpy_helper

    graph = onnx_graph(weights)
    graph.initializer.append(numpy_helper.from_array(np.ones(3, np.float32), "classifier.extra"))
    with pytest.raises(onnx_bert.ConversionError, match=r"no place.*classifier\.extra"):
        onnx_bert.read_encoder(graph)


@pytest.mark.parametrize("change", [lambda a: a.astype(np.float16), lambda a: a[:-1]])
def test_wrong_type_or_shape_is_an_error(
    weights: dict[str, np.ndarray], tmp_path: Path, change: Any
) -> None:
    name = "encoder.layer.0.output.dense.bias"
    weights[name] = change(weights[name])
    with pytest.raises(onnx_bert.ConversionError, match=name.replace(".", r"\.")):
        convert(weights, tmp_path)
