"""Loading pre-trained weights with a fresh task head."""

import copy
import functools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    PreTrainedConfig,
    PreTrainedModel,
)

from bigtickets.errors import DamagedError, InputError
from bigtickets.study.spec import Attention, ModelSpec

Values = Iterator[tuple[str, Tensor]]
"""Name and value (float32, on the CPU) of parameters, sorted by name."""

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()


def load_model(
    model: ModelSpec, num_outputs: int, seed: int, attention: Attention | None = None
) -> PreTrainedModel:
    """The pre-trained encoder in float32 with a task head drawn from `seed`.

    `num_outputs`: classes, or 1 for regression. Everything that is not in the pre-trained
    checkpoint, and the task head even if it is, starts fresh: normal with the config's
    initializer_range, biases 0, as the families' own initialisation does.
    """
    network = copy.deepcopy(_pretrained(model, num_outputs, attention or model.execution.attention))
    missing: set[str] = network.missing_from_checkpoint  # type: ignore[assignment]
    _set(network, fresh_values(network, missing, seed))
    return network


def randomize(network: PreTrainedModel, seed: int) -> None:
    """Draw all weights anew: the control that keeps a ticket's structure and not its weights."""
    _set(network, random_values(network, seed))


def fresh_values(network: PreTrainedModel, missing: Iterable[str], seed: int) -> Values:
    """What no checkpoint gives: the task head, and what is `missing` from the file.

    Of `network` only names, shapes and kinds of modules are read.
    """
    prefix, missing = network.base_model_prefix + ".", set(missing)
    names = [name for name, _ in network.named_parameters()]
    fresh = [name for name in names if not name.startswith(prefix) or name in missing]
    return _drawn(network, fresh, seed)


def random_values(network: PreTrainedModel, seed: int) -> Values:
    """All weights anew."""
    return _drawn(network, [name for name, _ in network.named_parameters()], seed + 1)


def model_config(model: ModelSpec) -> PreTrainedConfig:
    """The model's config, without loading weights."""
    try:
        return AutoConfig.from_pretrained(
            model.path, revision=model.revision, trust_remote_code=model.trust_remote_code
        )
    except (OSError, ValueError, ImportError, StrictDataclassError) as error:
        raise load_error(model, error) from error


def classifier_config(model: ModelSpec, num_outputs: int) -> PreTrainedConfig:
    """The model's config with a task head of `num_outputs`."""
    config = model_config(model)
    config.num_labels = num_outputs
    if getattr(config, "use_cache", False):
        config.use_cache = False  # of keys and values that a classifier never reads again
    return config


def kernel(attention: Attention) -> str | None:
    """Left to transformers, that is SDPA wherever the family has it, and eager elsewhere."""
    return None if attention == "sdpa" else attention


def read_config(model: ModelSpec) -> dict[str, Any]:
    """The model's config as a mapping."""
    return model_config(model).to_dict()


def _drawn(network: PreTrainedModel, names: Iterable[str], seed: int) -> Values:
    """Normal with the config's initializer_range, biases 0, scales of norms 1; sorted by name."""
    generator = torch.Generator().manual_seed(seed)
    std = getattr(network.config, "initializer_range", 0.02)
    parameters = dict(network.named_parameters())
    scales = {
        id(module.weight)
        for module in network.modules()
        # LayerNorm, RMSNorm, and the families' own ones.
        if type(module).__name__.endswith("Norm") and getattr(module, "weight", None) is not None
    }
    for name in sorted(names):
        value = torch.empty(parameters[name].shape)
        if value.dim() > 1:
            value.normal_(0.0, std, generator=generator)
        else:
            value.fill_(1.0 if id(parameters[name]) in scales else 0.0)
        yield name, value


def _set(network: PreTrainedModel, values: Values) -> None:
    parameters = dict(network.named_parameters())
    with torch.no_grad():
        for name, value in values:
            parameters[name].copy_(value)


# One model at a time: a warm worker runs many trials of it, and a large one fills the memory.
@functools.lru_cache(maxsize=1)
def _pretrained(model: ModelSpec, num_outputs: int, attention: Attention) -> PreTrainedModel:
    try:
        config = classifier_config(model, num_outputs)
        network, info = AutoModelForSequenceClassification.from_pretrained(
            model.path,
            config=config,
            revision=model.revision,
            trust_remote_code=model.trust_remote_code,
            attn_implementation=kernel(attention),
            dtype=torch.float32,
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # of another task's head, which starts fresh anyway
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        raise load_error(model, error) from error
    for name, found, expected in sorted(info["mismatched_keys"]):  # a set
        if name.startswith(network.base_model_prefix + "."):
            raise shape_error(f"{model.path}: {name}", found, expected)
    check_loaded(model, network, info["missing_keys"])
    # Deep copies keep it.
    network.missing_from_checkpoint = set(info["missing_keys"])
    return network


def check_loaded(model: ModelSpec, network: PreTrainedModel, missing: Iterable[str]) -> None:
    """An encoder that is not in the checkpoint would be a random model without a word."""
    prefix = network.base_model_prefix + "."
    lost = sorted(k for k in missing if k.startswith(prefix) and ".pooler." not in k)
    if lost:
        raise InputError(
            f"model {model.name} ({model.path}): {len(lost)} encoder weights are not in the "
            f"checkpoint, {lost[0]} the first; its names fit no {network.config.model_type} model"
        )


def shape_error(what: str, found: Sequence[int], expected: Sequence[int]) -> DamagedError:
    """Weights and config.json do not belong together."""
    return DamagedError(
        f"{what} is {tuple(found)}, the model's config.json makes it {tuple(expected)}"
    )


def load_error(model: ModelSpec, error: Exception) -> Exception:
    """What went wrong, for the user: a damaged file, a wrong study, or too little memory."""
    first = str(error).strip().splitlines()[0][:300]
    if "allocate memory" in first:
        return MemoryError(f"{model.name}: {first}")
    if Path(model.path).is_dir() and type(error).__name__ in ("SafetensorError", "RuntimeError"):
        return DamagedError(f"{model.path}: the weights of model {model.name} do not load: {first}")
    return InputError(f"model {model.name} ({model.path}) does not load: {first}")
