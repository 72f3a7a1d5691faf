"""Random models of every family, small enough for a test, and batches for them."""

import copy

import numpy as np
import torch
from torch import Tensor
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    DistilBertConfig,
    ElectraConfig,
    PreTrainedModel,
    RobertaConfig,
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
    "num_labels": 3,
}
CONFIGS = {
    "bert": BertConfig(**_SIZES),
    "roberta": RobertaConfig(**_SIZES),
    "xlm-roberta": XLMRobertaConfig(**_SIZES, type_vocab_size=1),
    "electra": ElectraConfig(**_SIZES, embedding_size=16),
    "distilbert": DistilBertConfig(
        vocab_size=60,
        dim=24,
        n_layers=3,
        n_heads=4,
        hidden_dim=20,
        max_position_embeddings=40,
        pad_token_id=1,
        num_labels=3,
    ),
}
FAMILIES = list(CONFIGS)


def tiny(
    family: str = "bert",
    attention: str = "sdpa",
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
    **changes: object,
) -> PreTrainedModel:
    """A sequence classifier in evaluation mode. No parameter, biases included, is 0."""
    config = copy.deepcopy(CONFIGS[family])
    config.update(changes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForSequenceClassification.from_config(
            config, attn_implementation=attention
        )
        for parameter in model.parameters():
            parameter.data += 0.2 * torch.randn_like(parameter)
    return model.to(dtype).eval()


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
    inputs, _ = padded(examples(count, seed=9))
    with torch.no_grad():
        return model(**inputs).logits
