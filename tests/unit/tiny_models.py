"""Random models of every family, small enough for a test, and batches for them."""

import copy
import functools

import numpy as np
import torch
from torch import Tensor
from transformers import (
    AlbertConfig,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    BertConfig,
    DebertaV2Config,
    DistilBertConfig,
    ElectraConfig,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    ModernBertConfig,
    MPNetConfig,
    OPTConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
    RobertaConfig,
    ViTConfig,
    XLMRobertaConfig,
)

torch.set_num_threads(1)  # at these sizes threads only wait for one another

_SIZES = {
    "vocab_size": 60,
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 20,
    "max_position_embeddings": 40,
    "pad_token_id": 1,
    "bos_token_id": 2,
    "eos_token_id": 3,
    "num_labels": 3,
}
_NO_FFN = {key: size for key, size in _SIZES.items() if key != "intermediate_size"}
"""For families that have another name for it."""
CONFIGS = {
    "bert": BertConfig(**_SIZES),
    "roberta": RobertaConfig(**_SIZES),
    "xlm-roberta": XLMRobertaConfig(**_SIZES, type_vocab_size=1),
    "electra": ElectraConfig(**_SIZES, embedding_size=16),
    "distilbert": DistilBertConfig(**_NO_FFN, hidden_dim=20),
    # Three groups, each run twice.
    "albert": AlbertConfig(
        **{**_SIZES, "num_hidden_layers": 6}, embedding_size=16, num_hidden_groups=3
    ),
    "mpnet": MPNetConfig(**_SIZES),
    "deberta-v2": DebertaV2Config(
        **_SIZES,
        relative_attention=True,
        pos_att_type=["c2p", "p2c"],
        position_buckets=8,
        norm_rel_ebd="layer_norm",
        type_vocab_size=0,
        position_biased_input=False,
    ),
    "modernbert": ModernBertConfig(**_SIZES, local_attention=8, cls_token_id=2, sep_token_id=3),
    "gpt2": GPT2Config(**_NO_FFN, n_inner=20),
    "opt": OPTConfig(**_NO_FFN, ffn_dim=20, word_embed_proj_dim=16),
    # Four groups of two and three query heads; heads x head size is not the hidden size.
    "llama": LlamaConfig(
        **{**_SIZES, "num_attention_heads": 8}, num_key_value_heads=4, head_dim=4, mlp_bias=True
    ),
    "mistral": MistralConfig(**_SIZES, num_key_value_heads=4, sliding_window=4),
    "qwen2": Qwen2Config(**{**_SIZES, "num_attention_heads": 12}, num_key_value_heads=4),
    "qwen3": Qwen3Config(**{**_SIZES, "num_attention_heads": 8}, num_key_value_heads=4, head_dim=6),
    "vit": ViTConfig(
        hidden_size=24,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=20,
        image_size=8,
        patch_size=2,
        num_labels=3,
    ),
}
FAMILIES = list(CONFIGS)
BERT_BASE = {
    "model_type": "bert",
    "num_hidden_layers": 12,
    "hidden_size": 768,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "vocab_size": 30522,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "hidden_act": "gelu",
}
"""The content of a config.json, as far as it says sizes."""
KERNELS = [
    (family, attention)
    for family in FAMILIES
    for attention in ("sdpa", "eager")
    if attention == "eager" or family not in ("mpnet", "deberta-v2")
]
"""Every family with every attention that it has."""


def tiny(
    family: str = "bert",
    attention: str | None = None,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
    **changes: object,
) -> PreTrainedModel:
    """A classifier in evaluation mode. No parameter, biases included, is 0."""
    model = copy.deepcopy(_tiny(family, attention, seed, tuple(changes.items())))
    for parameter in model.parameters():  # as from_pretrained does, that leaves buffers alone
        parameter.data = parameter.data.to(dtype)
    return model


@functools.cache
def _tiny(
    family: str, attention: str | None, seed: int, changes: tuple[tuple[str, object], ...]
) -> PreTrainedModel:
    config = copy.deepcopy(CONFIGS[family])
    config.update(dict(changes))
    auto = (
        AutoModelForImageClassification if family == "vit" else AutoModelForSequenceClassification
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = auto.from_config(config, attn_implementation=attention)
        for parameter in model.parameters():
            parameter.data += 0.2 * torch.randn_like(parameter)
    return model.eval()


def batch_for(
    model: PreTrainedModel, batch: list[tuple[Tensor, Tensor]]
) -> tuple[dict[str, Tensor], Tensor]:
    """What the model takes, and labels (B): padded tokens, or an image drawn from each text."""
    inputs, labels_B = padded(batch)
    if model.config.model_type != "vit":
        return inputs, labels_B
    draw = [torch.Generator().manual_seed(int(ids.sum())) for ids, _ in batch]
    images = [torch.randn(3, 8, 8, generator=each, dtype=torch.float64) for each in draw]
    return {"pixel_values": torch.stack(images)}, labels_B


def examples(count: int, seed: int = 0) -> list[tuple[Tensor, Tensor]]:
    """Token ids (T, T from 3 to 12) and label of each example."""
    random = torch.Generator().manual_seed(seed)
    lengths = torch.randint(3, 13, (count,), generator=random)
    return [
        (
            torch.randint(4, 60, (int(length),), generator=random),
            torch.randint(0, 3, (), generator=random),
        )
        for length in lengths
    ]


def padded(batch: list[tuple[Tensor, Tensor]]) -> tuple[dict[str, Tensor], Tensor]:
    """Inputs (B x T) of a batch, padded to its longest example, and labels (B)."""
    ids = torch.nn.utils.rnn.pad_sequence([ids for ids, _ in batch], True, padding_value=1)
    lengths = torch.tensor([len(ids) for ids, _ in batch])
    mask = (torch.arange(ids.shape[1]) < lengths[:, None]).long()
    return {"input_ids": ids, "attention_mask": mask}, torch.stack([label for _, label in batch])


def random_kept(seed: int = 0, **units: tuple[int, int]) -> dict[str, np.ndarray]:
    """Masks that keep about half of the units; `units` are layers x units of each type."""
    random = np.random.default_rng(seed)
    return {unit: random.random(shape) < 0.5 for unit, shape in units.items()}


def logits(model: PreTrainedModel, count: int = 6) -> Tensor:
    """B x C for some padded examples."""
    inputs, _ = batch_for(model, examples(count, seed=9))
    with torch.no_grad():
        return model(**inputs).logits
